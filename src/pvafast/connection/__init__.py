"""Connections without I/O: bytes in, events out; and what is to be sent, as buffers."""

from .events import Malformed, Observed
from .observer import ObservedChannel, ObservedOperation, Observer

__all__ = ["Malformed", "Observed", "ObservedChannel", "ObservedOperation", "Observer"]
