#!/bin/sh
set -eu
./greet.sh staging
echo "release candidate $FORGE_VERSION of $FORGE_OWNER/$FORGE_REPO answers"
