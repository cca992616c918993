"""What a capture tells, summed up: what is kept, in bounds -> searches -> summary -> its text."""

from .kept import Latency, type_name
from .summary import Summary

__all__ = ["Latency", "Summary", "type_name"]
