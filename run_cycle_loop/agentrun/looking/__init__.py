"""How far runs are and what became of them: one set of words for this machine and for a cluster.

Pure: what was seen goes in, what is to be shown comes out. Who fetches it is in ``local`` and ``cluster``.
"""
