"""Where the goal of each cycle comes from: a text, a file, a list of goals, a command. Implement the port ``Goals``.

What a cycle makes of its goal, and how one of several is chosen (``policies.goals``), does not belong here.
"""
