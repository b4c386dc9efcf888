#!/bin/sh
# One step of the work: count to three, and say whether more is to be done.
set -eu
count=$(cat "$RUN_CYCLE_STATE_DIR/count" 2>/dev/null || echo 0)
count=$((count + 1))
echo "$count" >"$RUN_CYCLE_STATE_DIR/count"

more=true
[ "$count" -lt 3 ] || more=false
printf '{"continue": %s, "reason": "counted to %s", "outputs": {"count": %s}}\n' "$more" "$count" "$count" \
    >"$RUN_CYCLE_CONTROL_FILE"
