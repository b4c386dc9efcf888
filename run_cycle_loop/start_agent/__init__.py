"""What runs inside one cycle: ``start_agent`` asks for consent, starts the planner or one session of a coding agent,
and leaves digest, archive and control payload.

A composition root of its own: the loop starts it as a command, and knows nothing of it but what it leaves.
"""
