#!/bin/sh
# Two one-shot runs that write a textfile for node_exporter, and the rules, checked and tried where promtool is there.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

mkdir -p out
run-cycle-loop run --metrics-textfile out/run_cycle.prom -- true 2>/dev/null
run-cycle-loop run --metrics-textfile out/run_cycle.prom -- false 2>/dev/null || echo "exit code $?"
grep -E '^run_cycle_(cycles_total|consecutive)' out/run_cycle.prom | grep -v ' 0.0$'

if command -v promtool >/dev/null; then
    promtool check config prometheus.yml
    promtool test rules rules.test.yml
else
    echo "promtool is not installed, so the rules were not tried"
fi
