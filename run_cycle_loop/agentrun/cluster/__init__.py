"""What is done with a run on a Kubernetes cluster: looked at, submitted, watched, verified, cancelled.

Every function here is handed the cluster, the clock and a wait that a stop cuts short, and gives plain data back. What
does not belong here: what a run means (its parent), how an API is talked to (``clients.kubernetes``), and how any of it
is shown.
"""
