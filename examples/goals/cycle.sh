#!/bin/sh
# Called as cycle.sh MODE GOAL. It says that a goal is reached the second time that it is asked for it.
set -eu
echo "goal: $2"
mkdir -p out
echo "$2" >>out/asked.txt

done=false
[ "$(grep -cxF "$2" out/asked.txt)" -lt 2 ] || done=true
printf '{"done": %s}\n' "$done" >"$RUN_CYCLE_CONTROL_FILE"
