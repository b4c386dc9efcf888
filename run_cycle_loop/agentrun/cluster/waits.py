"""How anything here waits: by a function that a stop cuts short."""

from collections.abc import Callable

#: Waits so many seconds; True where a stop was asked for, which cuts it short. ``wait(0)`` only asks.
Wait = Callable[[float], bool]
