#!/bin/sh
# A tiny agent: called as agent.sh PROMPT_FILE RESULT_FILE in its workdir. A real one would ask a model.
set -eu
goal=$(sed -n 1p "$1")
echo "$goal" >>done.txt

# What the result file holds decides; without "class" the exit code would.
cat >"$2" <<END
{"class": "ok", "text": "I noted the goal in done.txt.",
 "usage": {"input_tokens": 1200, "output_tokens": 80, "cost_usd": 0.01}}
END
