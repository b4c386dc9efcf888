#!/bin/sh
# A cycle that may not start yet, what the loop says of it, and the same cycle once its reason is mended.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

rm -rf inbox
run-cycle-loop run 2>/dev/null || echo "exit code $?"
mkdir inbox
echo "a letter" >inbox/letter.txt
run-cycle-loop run 2>/dev/null
run-cycle-loop history
run-cycle-loop logs latest | grep -v ' free$\|MiB free\]'
