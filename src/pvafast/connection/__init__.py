"""Connections without I/O: bytes in, events out; and what is to be sent, as buffers."""

from .._backend import monitor
from .client import ClientConnection
from .conversation import ObservedChannel, ObservedOperation
from .events import (
    Cancelled,
    ChannelClosed,
    ChannelFailed,
    ChannelOpened,
    ChannelRequested,
    Collected,
    ConnectionEnded,
    Credentials,
    EchoReply,
    Event,
    Greeted,
    Malformed,
    Observed,
    OperationReply,
    OperationRequest,
    Received,
    Validated,
)
from .observer import Observer
from .server import EncodedUpdate, ServerConnection
from .shared import Channel, Connection, ConnectionOperation

Update = monitor.Update

__all__ = [
    "Cancelled",
    "Channel",
    "ChannelClosed",
    "ChannelFailed",
    "ChannelOpened",
    "ChannelRequested",
    "ClientConnection",
    "Collected",
    "Connection",
    "ConnectionEnded",
    "ConnectionOperation",
    "Credentials",
    "EchoReply",
    "EncodedUpdate",
    "Event",
    "Greeted",
    "Malformed",
    "Observed",
    "ObservedChannel",
    "ObservedOperation",
    "Observer",
    "OperationReply",
    "OperationRequest",
    "Received",
    "ServerConnection",
    "Update",
    "Validated",
]
