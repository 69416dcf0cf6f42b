#!/bin/sh
# Looks whether each package is whole, and says what the app greets with.
set -e
[ "$(wc -l <node_modules/primes/table.js)" -eq 25998 ] # the primes below 300,000, and a first line
[ "$(tail -n 1 node_modules/primes/table.js)" = 299993, ]
[ "$(sort -n node_modules/collatz/table.js | tail -n 1)" = "350 77031," ] # the longest way of those below 80,000
[ "$(ls node_modules/words/of | wc -l)" -eq 1000 ]
node_modules/words/bin/greet "$(cat greeting)"
