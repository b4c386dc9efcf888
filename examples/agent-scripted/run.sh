#!/bin/sh
# Replays three sessions, in the middle of them a rate limit, and shows what the loop made of them.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop run --iterations 2 2>/dev/null
run-cycle-loop history
run-cycle-loop history --json | jq -c '{number, status, usage: .usage.cost_usd, files: .files_changed}' 2>/dev/null ||
    echo "jq is not installed, so the records are not shown"
