"""One small module per way to get a cycle's work done: argv in, outcome and usage out.

The planner that ships lives here, with what it measures (``experiments``) and what it keeps (``digests``); command
lines of coding agents belong here too. Starting processes, deadlines and the loop's own records do not: an agent runs
inside a cycle and knows nothing of the supervisor but the variables it was given.
"""
