#!/bin/sh
# Checks the manifest, says what it would do, runs it on this machine, and shows what became of it.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop agentrun validate --quiet -f run.yaml
run-cycle-loop agentrun run --unique -f run.yaml
run-cycle-loop agentrun list
