#!/bin/sh
# The nightly work: one archive of the notes for each cycle.
set -eu
mkdir -p out
tar -cf "out/notes-$RUN_CYCLE_NUMBER.tar" notes
echo "packed $(find notes -type f | wc -l | tr -d ' ') notes as out/notes-$RUN_CYCLE_NUMBER.tar"
