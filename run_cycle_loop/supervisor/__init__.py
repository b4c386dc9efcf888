"""The loop: one cycle after the other, each recorded before the next begins.

It knows ports and policies, never an adapter: what a history is made of, or how a child is ended, is not its business.
"""
