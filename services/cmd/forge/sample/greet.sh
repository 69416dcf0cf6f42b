#!/bin/sh
# Greets whoever is named, else the world.
echo "Hello, ${1:-world}!"
