"""EPICS PVAccess for Python: bytes in, numpy out."""

from typing import TYPE_CHECKING

from . import _backend, connection, errors, messages, ndarray, normative, request
from ._backend import BACKEND
from ._elements import ElementColumns
from ._lazy import lazily
from ._version import __version__
from .connection import ClientConnection, Observer, ServerConnection
from .errors import (
    ClientClosed,
    DecodeError,
    Disconnected,
    EncodeError,
    LimitExceeded,
    LocalProtocolError,
    OperationTimeout,
    ProtocolError,
    PvaError,
    RangeError,
    RemoteError,
)
from .limits import Limits

if TYPE_CHECKING:
    from . import archive, capture, client, server
    from .client import Client
    from .server import PV, Server
else:  # a program that decodes need not wait for asyncio, one that is a client not for captures
    __getattr__, __dir__ = lazily(
        __name__,
        {"archive": ".archive", "capture": ".capture", "client": ".client", "Client": ".client"}
        | {"server": ".server", "Server": ".server", "PV": ".server"},
    )

BitSet = _backend.bitset.BitSet
FieldDesc = _backend.introspection.FieldDesc
#: The FieldDesc of an alarm: severity, status, message.
alarm_t = _backend.introspection.alarm_t
#: The FieldDesc of a time stamp: secondsPastEpoch (since 1970), nanoseconds, userTag.
time_t = _backend.introspection.time_t
#: The FieldDesc of an enum: index, choices.
enum_t = _backend.introspection.enum_t
Value = _backend.value.Value
UnionValue = _backend.value.UnionValue
Update = _backend.monitor.Update
AnyValue = _backend.value.AnyValue
Codec = _backend.codec.Codec
Projection = _backend.projection.Projection
Columns = _backend.columns.Columns
Losses = _backend.losses.Losses

__all__ = [
    "BACKEND",
    "AnyValue",
    "BitSet",
    "Client",
    "ClientClosed",
    "Codec",
    "Columns",
    "DecodeError",
    "Disconnected",
    "ElementColumns",
    "EncodeError",
    "FieldDesc",
    "LimitExceeded",
    "Limits",
    "Losses",
    "LocalProtocolError",
    "OperationTimeout",
    "PV",
    "Projection",
    "ProtocolError",
    "PvaError",
    "RangeError",
    "RemoteError",
    "Server",
    "UnionValue",
    "Update",
    "Value",
    "ClientConnection",
    "Observer",
    "ServerConnection",
    "archive",
    "capture",
    "client",
    "connection",
    "messages",
    "ndarray",
    "normative",
    "request",
    "server",
    "__version__",
    "alarm_t",
    "enum_t",
    "errors",
    "time_t",
]
