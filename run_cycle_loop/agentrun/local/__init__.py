"""AgentRuns on this machine: the engine that carries out what ``reconcile`` decides, with processes instead of Jobs.

What belongs here is what a run needs from the machine: its folders, its volumes, the processes of its attempts, and the
order in which all that is written down. What does not: what is next (``agentrun.reconcile``), where runs are kept (the
port ``RunStore``), and what an attempt does (``start_attempt``, of which only the command line is known here).
"""
