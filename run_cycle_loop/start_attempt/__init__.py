"""One attempt of an AgentRun on this machine: the counterpart of the runner in a cluster's pod.

It reads ``agent-runner.json``, runs the provider's command or a session of a coding agent, and leaves ``status.json``
and ``runner.log``. A composition root of its own: the engine starts it as a command, and knows nothing of it but what
it leaves.
"""
