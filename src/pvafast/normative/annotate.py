"""Metadata: what the program says of a value beside it, set in a Value: alarm, time, units, limits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import floor, isfinite
from typing import Any, Final, TypeAlias, TypedDict

import numpy as np

from .. import _backend
from ..errors import EncodeError
from .meta import Meta

Value = _backend.value.Value

Time: TypeAlias = "float | tuple[int, int] | datetime | np.datetime64"

NS: Final = 1_000_000_000


class Metadata(TypedDict, total=False):
    """What every `wrap` takes beside the value; what is not given is not set, and not marked.

    severity, status, message: the alarm. timestamp: seconds since 1970 as a number, (seconds, nanoseconds), a datetime (one
    without a zone is local time) or a numpy.datetime64; timestamp_ns: the same in ns, an int; user_tag.
    descriptor. units: display.units. display, control, value_alarm: mappings of their fields, named as on the wire.
    """

    severity: int
    status: int
    message: str
    timestamp: Time
    timestamp_ns: int
    user_tag: int
    descriptor: str
    units: str
    display: Mapping[str, Any]
    control: Mapping[str, Any]
    value_alarm: Mapping[str, Any]


_PLACES: Final = {
    "severity": "alarm.severity",
    "status": "alarm.status",
    "message": "alarm.message",
    "user_tag": "timeStamp.userTag",
    "descriptor": "descriptor",
    "units": "display.units",
}
_GROUPS: Final = {"display": "display", "control": "control", "value_alarm": "valueAlarm"}


def split_time(timestamp: Time) -> tuple[int, int]:
    """(seconds, nanoseconds) since 1970 of a time in any form that `Metadata` takes. Raises EncodeError."""
    if isinstance(timestamp, tuple):
        seconds, nanoseconds = timestamp
        return int(seconds), int(nanoseconds)
    if isinstance(timestamp, np.datetime64):
        ns = timestamp.astype("datetime64[ns]").astype(np.int64)
        return divmod(int(ns), NS)
    if isinstance(timestamp, datetime):
        timestamp = timestamp.timestamp()
    if isinstance(timestamp, bool | str) or not isfinite(timestamp):
        raise EncodeError(f"{timestamp!r} is no time", "timeStamp")
    seconds = floor(timestamp)
    return divmod(seconds * NS + round((timestamp - seconds) * NS), NS)


def _set(value: Value, name: str, x: Any) -> None:
    if name not in value.type:
        raise EncodeError(f"{value.type.id or 'the type'} has no field `{name}`")
    value[name] = x


def annotate(value: Value, meta: Metadata) -> Value:
    """Set what `meta` gives in a Value, and return it. Raises EncodeError for what its type has no field for."""
    if not meta:
        return value
    unknown = meta.keys() - Metadata.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    for name, place in _PLACES.items():
        if name in meta:
            _set(value, place, meta[name])  # type: ignore[literal-required]
    for name, group in _GROUPS.items():
        for key, x in meta.get(name, {}).items():  # type: ignore[attr-defined]
            _set(value, f"{group}.{key}", x)
    if "timestamp" in meta or "timestamp_ns" in meta:
        if "timestamp" in meta and "timestamp_ns" in meta:
            raise TypeError("timestamp and timestamp_ns: give one of them")
        ns = meta.get("timestamp_ns")
        seconds, nanoseconds = split_time(meta["timestamp"]) if ns is None else divmod(ns, NS)
        _set(value, "timeStamp.secondsPastEpoch", seconds)
        _set(value, "timeStamp.nanoseconds", nanoseconds)
    return value


def carried(x: Any, meta: Metadata) -> Metadata:
    """`meta`, filled up with the alarm and the time of a value that was read from another Value."""
    if not isinstance(x, Meta) or x.raw is None:
        return meta
    kept = Metadata()
    if "alarm" in x.raw.type:
        kept["severity"], kept["status"], kept["message"] = x.severity, x.status, x.message
    if "timeStamp" in x.raw.type:
        kept["user_tag"] = x.user_tag
        if "timestamp" not in meta:
            kept["timestamp_ns"] = x.timestamp_ns
    kept.update(meta)
    return kept
