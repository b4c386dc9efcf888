"""What stays on disk: the history, the in-flight slot, ``latest.json``, the cycle logs, the archives' freshness.

Durability and repair belong here; what the stored things mean does not.
"""
