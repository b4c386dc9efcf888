#!/bin/sh
# One cycle of Claude Code, under consent for one cycle, and what it came to.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

command -v claude >/dev/null || {
    echo "claude is not installed: npm install --global @anthropic-ai/claude-code, then run \`claude\` and give it \`/login\`"
    exit 0
}
run-cycle-loop consent grant --until 1h --max-cycles 1 --for-agent claude --reason "the example"
run-cycle-loop run 2>/dev/null || echo "exit code $?"
run-cycle-loop history
run-cycle-loop logs latest | grep '^Agent\|^To do\|^Summary' || true
run-cycle-loop budget
cat sandbox/hello.txt
