"""AgentRun manifests: read, checked, explained, rendered, run here and sent to a cluster.

What belongs here is everything that knows what an AgentRun is. The model is at the top; ``manifests`` read and write
it, ``checks`` and ``explaining`` speak of it, ``rendering`` makes what a controller would make, ``lifecycle`` moves its
status, ``looking`` tells how far it is, ``local`` runs one on this machine, ``cluster`` deals with one elsewhere. What
does not belong here: how to talk to a Kubernetes API (``clients.kubernetes``), how to start a coding agent
(``agents``), and where runs of this machine are kept (``stores``, behind a port).
"""
