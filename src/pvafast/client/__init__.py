"""The client: search, channels, requests and subscriptions, for asyncio and (pvafast.sync) for programs without."""

from typing import TYPE_CHECKING

from .._lazy import lazily
from .base import DEFAULT, ChannelStatus, ServerInfo
from .servers import BeaconEvent, ServerEvent
from .subscription import Connected, Disconnected, Event, Finished, Reading, Subscription, TypeChanged

if TYPE_CHECKING:
    from .aio import AsyncSubscription, AsyncWatch, Client
else:  # pvafast.sync does without asyncio
    __getattr__, __dir__ = lazily(
        __name__, dict.fromkeys(("AsyncSubscription", "AsyncWatch", "Client"), ".aio")
    )

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
