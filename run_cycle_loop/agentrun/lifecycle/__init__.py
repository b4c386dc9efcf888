"""A run's status, and the state machine that moves it: pure, the same for a machine and for a cluster.

Who executes its actions is in ``local``, and on a cluster a controller.
"""
