#!/bin/sh
# One cycle of opencode, under consent for one cycle, and what it came to.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

command -v opencode >/dev/null || {
    echo "opencode is not installed: npm install --global opencode-ai, then run \`opencode auth login\`"
    exit 0
}
run-cycle-loop consent grant --until 1h --max-cycles 1 --for-agent opencode --reason "the example"
run-cycle-loop run 2>/dev/null || echo "exit code $?"
run-cycle-loop history
run-cycle-loop logs latest | grep '^Agent\|^To do\|^Summary' || true
run-cycle-loop budget
cat sandbox/hello.txt
