"""AgentRun manifests: read, checked, explained, rendered, run here and sent to a cluster.

What belongs here is everything that knows what an AgentRun is: its model, its rules, its prompts and payloads, the
state machine of a run, the engine that runs one on this machine (``local``) and what is done with one on a cluster
(``cluster``). What does not: how to talk to a Kubernetes API (``clients.kubernetes``), how to start a coding agent
(``agents``), and where runs of this machine are kept (``stores``, behind a port).
"""
