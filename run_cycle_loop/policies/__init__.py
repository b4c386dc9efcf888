"""Decisions, pure: what an observation means, how long to wait, whether to go on.

Nothing here touches a process, a file or the clock; chance and time come in as values.
"""
