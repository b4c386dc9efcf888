"""run-cycle-loop: the supervisor for unattended agent cycles.

The folders are the floors of the house, top to bottom: ``cli``, ``app`` and ``report``, ``config``, the third floor
(``supervisor``, ``runners``, ``prerequisites``, ``stores``, ``controls``, ``observers``), ``agents``, ``policies``, and
at the bottom ``model`` and ``kit``. Imports go down only; see ``docs/architecture.md``.
"""

__version__ = "0.1.0"
