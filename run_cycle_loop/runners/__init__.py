"""One way to run a cycle each, thin: what to start, with which environment, and what was observed.

How processes are ended belongs to ``kit``; what an observation means belongs to ``policies``.
"""
