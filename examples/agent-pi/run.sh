#!/bin/sh
# One cycle of pi, under consent for one cycle, and what it came to.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

command -v pi >/dev/null || {
    echo "pi is not installed: npm install --global @mariozechner/pi-coding-agent, then run \`pi\` and give it \`/login\`"
    exit 0
}
run-cycle-loop consent grant --until 1h --max-cycles 1 --for-agent pi --reason "the example"
run-cycle-loop run 2>/dev/null || echo "exit code $?"
run-cycle-loop history
run-cycle-loop logs latest | grep '^Agent\|^To do\|^Summary' || true
run-cycle-loop budget
cat sandbox/hello.txt
