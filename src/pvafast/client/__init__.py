"""The client: search, channels, requests and subscriptions, for asyncio and (pvafast.sync) for programs without."""

from .aio import AsyncSubscription, AsyncWatch, Client
from .base import DEFAULT, ChannelStatus, ServerInfo
from .servers import BeaconEvent, ServerEvent
from .subscription import Connected, Disconnected, Event, Finished, Reading, Subscription, TypeChanged

__all__ = [
    "DEFAULT",
    "AsyncSubscription",
    "AsyncWatch",
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
]
