"""Ways to stop the loop, to hurry it, and to keep a second one out: signals, the stop-file, the lock.

Nothing here knows what a cycle does. The stop token is the only place where the product waits between cycles.
"""
