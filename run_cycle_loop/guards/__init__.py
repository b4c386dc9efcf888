"""What must allow each cycle and learns what became of it: consent, budgets, breakers.

A guard keeps what outlives the process in a store that it is given, behind a port; what an observation means is decided
in ``policies``. What is only looked at before a cycle is a prerequisite.
"""
