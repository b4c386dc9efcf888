"""Far ends, each with an error of its own: one module says what the far end knows, and what was asked of it.

Whatever a far end answers is foreign: bounded in time and size, and never run. What an answer means for a cycle is
decided elsewhere.
"""
