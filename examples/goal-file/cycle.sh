#!/bin/sh
# Called as cycle.sh MODE GOAL. It works on the goal, then makes the next line of the backlog the goal.
set -eu
echo "mode $1, goal: $2"

next=$(sed -n 1p backlog.txt)
[ -n "$next" ] || exit 0
echo "$next" >goal.txt
sed 1d backlog.txt >backlog.left
mv backlog.left backlog.txt
