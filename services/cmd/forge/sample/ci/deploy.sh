#!/bin/sh
# A real one would copy files or roll out an image; this one makes a site and looks at it.
set -eu
mkdir -p site
./greet.sh "$1" >site/index.txt
echo "$FORGE_SHA" >site/version.txt
echo "$1 now runs $(cut -c1-7 site/version.txt): $(cat site/index.txt)"
