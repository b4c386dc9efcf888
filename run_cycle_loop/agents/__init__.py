"""One small module per way to get a cycle's work done: argv in, outcome and usage out.

The planner that ships lives here, with what it measures (``experiments``) and what it keeps (``digests``), and so do
the command lines of coding agents, one module each (``registry`` knows them all). ``session`` starts one of them,
isolated, and ends it where a limit wants it. The loop's own records do not belong here: an agent runs inside a cycle
and knows nothing of the supervisor but the variables it was given.
"""
