"""Connections without I/O: bytes in, events out; and what is to be sent, as buffers."""

from .._backend import monitor
from .events import Malformed, Observed
from .observer import ObservedChannel, ObservedOperation, Observer

Update = monitor.Update

__all__ = ["Malformed", "Observed", "ObservedChannel", "ObservedOperation", "Observer", "Update"]
