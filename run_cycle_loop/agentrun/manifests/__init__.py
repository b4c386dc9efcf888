"""Manifests as somebody wrote them: read from files with their lines, and written from flags.

What they mean belongs to ``model``, whether they make sense to ``checks``.
"""
