"""What must hold before a cycle: one small check each, bounded in time, that reports and never raises.

Checks look and write nothing. What is checked of a finished cycle belongs elsewhere.
"""
