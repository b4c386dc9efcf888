"""What must hold before a cycle: one small check each, bounded in time, that reports and never raises.

Checks look and write nothing, but for a git update that the operator asks for. What is checked of a finished cycle
belongs elsewhere.
"""
