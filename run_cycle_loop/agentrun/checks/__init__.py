"""What is wrong with a manifest: what the API server and the controller refuse, and what nobody refuses and bites.

Everything here is pure and offline; what a cluster would have to be asked is in ``cluster``.
"""
