#!/bin/sh
# One cycle of Gemini CLI, under consent for one cycle, and what it came to.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

command -v gemini >/dev/null || {
    echo "gemini is not installed: npm install --global @google/gemini-cli, then run \`gemini\` and log in"
    exit 0
}
run-cycle-loop consent grant --until 1h --max-cycles 1 --for-agent gemini --reason "the example"
run-cycle-loop run 2>/dev/null || echo "exit code $?"
run-cycle-loop history
run-cycle-loop logs latest | grep '^Agent\|^To do\|^Summary' || true
run-cycle-loop budget
cat sandbox/hello.txt
