"""The client for programs without asyncio: the same methods, and each waits for its answer.

The thread that calls runs the client's loop while it waits: an answer is in its hands without another thread in between.
While no one calls, a daemon thread does, so that connections live and callbacks are called.
"""

from ..client.base import DEFAULT, ChannelStatus, ServerInfo
from ..client.servers import BeaconEvent, ServerEvent
from ..client.subscription import Connected, Disconnected, Event, Finished, Reading, TypeChanged
from .client import Client
from .feed import Subscription, Watch

__all__ = [
    "DEFAULT",
    "BeaconEvent",
    "ChannelStatus",
    "Client",
    "Connected",
    "Disconnected",
    "Event",
    "Finished",
    "Reading",
    "ServerEvent",
    "ServerInfo",
    "Subscription",
    "TypeChanged",
    "Watch",
]
