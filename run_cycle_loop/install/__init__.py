"""Everything that puts the loop onto a machine for good: the texts of the systemd units and of the crontab block,
placed without overwriting an operator's work, and verified. What the loop does once it runs does not belong here.
"""
