"""The words: frozen records, enums, errors and ports. No behaviour beyond what a word means, no effects, no imports
from any other room.
"""
