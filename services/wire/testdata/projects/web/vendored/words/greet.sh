#!/bin/sh
echo "$1, there are $(ls "$(dirname "$0")/../of" | wc -l) words"
