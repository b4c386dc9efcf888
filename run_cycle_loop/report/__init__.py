"""Read-only views over the stores: what the loop does now, what it did, what a cycle printed.

Functions here take what they show as arguments and return plain data or text; they neither print nor change anything,
and every foreign word in their text is made harmless for a terminal first. Deciding and writing do not belong here.
"""
