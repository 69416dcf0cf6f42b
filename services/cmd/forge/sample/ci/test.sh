#!/bin/sh
set -eu
expect() {
    got=$1 want=$2
    [ "$got" = "$want" ] || { echo "got \"$got\", want \"$want\"" >&2; exit 1; }
    echo "ok: $got"
}
expect "$(./greet.sh)" "Hello, world!"
expect "$(./greet.sh Ada)" "Hello, Ada!"
