"""The one way to a Kubernetes API: what it is asked for, in plain JSON, and every way in which it may refuse.

What an object means is decided elsewhere, and so is which ones there are to be. Kubeconfigs, credentials and TLS are
lightkube's business; it is imported when a cluster is connected to, and not before.
"""
