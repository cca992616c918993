"""The recorded messages that are timed, and what they hold.

Monitor messages of pvxs 1.5.3, little-endian, in tests/data/bench_messages: `X.init.msg` is the reply that carries the
type, `X.Y.msg` an update. The pixels of `nd.512` are replaced by a ramp, so that the file packs; larger frames are
made of it.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "tests" / "data"
FOLDER = DATA / "bench_messages"

TYPE_AT = 14  # in an init message: header, ioid, subcommand, status
UPDATE_AT = 13  # in an update: header, ioid, subcommand

ALARM = {"alarm.severity": 1, "alarm.status": 3, "alarm.message": "HIHI_ALARM"}
TIME = {"timeStamp.secondsPastEpoch": 1700000001, "timeStamp.nanoseconds": 1007, "timeStamp.userTag": 1}

# The leaves that came, as the program that sent them had set them.
HOLDS: dict[str, dict[str, object]] = {
    "nts.vt": {"value": 2.25, "timeStamp.secondsPastEpoch": 1700000001, "timeStamp.nanoseconds": 123456789},
    "nts.full": {"value": 1.25, **ALARM, **TIME},
    "ntsmin.full": {"value": 1.25, **ALARM, **TIME},
    "nts.all": {
        "value": 3.5,
        **ALARM,
        "timeStamp.secondsPastEpoch": 1700000002,
        "timeStamp.nanoseconds": 2007,
        "timeStamp.userTag": 2,
        "display.limitLow": -10.0,
        "display.limitHigh": 10.0,
        "display.description": "A double with limits",
        "display.units": "mm",
        "control.limitLow": -5.0,
        "control.limitHigh": 5.0,
        "control.minStep": 0.1,
        "valueAlarm.active": True,
        "valueAlarm.lowAlarmLimit": -9.0,
        "valueAlarm.lowWarningLimit": -8.0,
        "valueAlarm.highWarningLimit": 8.0,
        "valueAlarm.highAlarmLimit": 9.0,
        "valueAlarm.lowAlarmSeverity": 2,
        "valueAlarm.lowWarningSeverity": 1,
        "valueAlarm.highWarningSeverity": 1,
        "valueAlarm.highAlarmSeverity": 2,
        "valueAlarm.hysteresis": 0.25,
    },
    "ntsa.1000": {"value": [i * 0.5 for i in range(1000)], **ALARM, **TIME},
    "ntsas.1000": {"value": [f"string number {i}" for i in range(1000)], **ALARM, **TIME},
    "tbl.upd": {
        "labels": ["id", "name", "x", "ok"],
        "value.id": list(range(100)),
        "value.name": [f"row {i}" for i in range(100)],
        "value.x": [i * 0.5 for i in range(100)],
        "value.ok": [bool(i % 2) for i in range(100)],
    },
}


def check(name: str, get: Callable[[str], Any]) -> None:
    """Assert that get("alarm.severity") and so on are what the update `name` holds."""
    for path, held in HOLDS[name].items():
        found = get(path)
        assert (found.tolist() if hasattr(found, "tolist") else found) == held, path


def by_path(tree: dict[str, Any]) -> Callable[[str], Any]:
    """Nested dicts as `check` reads them."""

    def get(path: str) -> Any:
        found: Any = tree
        for part in path.split("."):
            found = found[part]
        return found

    return get


@cache
def init(name: str) -> bytes:
    """The init message of the channel of an update: nts.vt -> nts.init."""
    return (FOLDER / f"{name.split('.')[0]}.init.msg").read_bytes()


def described(name: str) -> bytes:
    """The type description of a channel, without ids."""
    return init(name)[TYPE_AT:]


@cache
def update(name: str) -> bytes:
    """The whole message."""
    if name.startswith("nd."):
        return frame(int(name[3:]))
    return (FOLDER / f"{name}.msg").read_bytes()


def body(name: str) -> tuple[bytes, bytes]:
    """The BitSet of an update and its data, without the overrun BitSet behind them (an empty one, here)."""
    raw = update(name)
    assert raw[UPDATE_AT] < 0xFE
    start = UPDATE_AT + 1 + raw[UPDATE_AT]
    assert raw[-1] == 0
    return raw[UPDATE_AT:start], raw[start:-1]


def full_body(name: str) -> bytes:
    """The data of an update as that of a full value, for codecs that know no BitSets; only where that is the case."""
    data = body(name)[1]
    if name == "nts.all":  # all but display.format, an empty string
        at = data.index(b"\x02mm")
        data = data[:at] + b"\0" + data[at:]
    else:
        assert name in ("ntsmin.full", "ntsa.1000", "ntsas.1000", "tbl.upd") or name.startswith("nd.")
    return data


def stream(count: int) -> bytes:
    """Updates of value and time of an NTScalar, one after the other; the values are 0, 0.5, 1, ..."""
    one = update("nts.vt")
    at = one.index(struct.pack("<d", 2.25))
    return b"".join(one[:at] + struct.pack("<d", i * 0.5) + one[at + 8 :] for i in range(count))


def ramp(n: int) -> bytes:
    """The pixels of a frame of n × n uint16: i % 251."""
    period = b"".join(struct.pack("<H", i) for i in range(251))
    return (period * (n * n // 251 + 1))[: 2 * n * n]


@cache
def frame(n: int) -> bytes:
    """An NTNDArray message of n × n uint16, with the five attributes of the recorded one."""
    raw = gzip.decompress((FOLDER / "nd.512.msg.gz").read_bytes())
    if n == 512:
        return raw
    start = raw.index(ramp(512)) - 5  # a Size in five bytes
    head, tail = raw[8:start], raw[start + 5 + 2 * 512 * 512 :]
    # compressedSize and uncompressedSize; size and fullSize of two dimensions.
    for form, old, new, times in (("<q", 512 * 512 * 2, n * n * 2, 2), ("<i", 512, n, 4)):
        assert tail.count(struct.pack(form, old)) == times
        tail = tail.replace(struct.pack(form, old), struct.pack(form, new))
    payload = head + b"\xfe" + struct.pack("<I", n * n) + ramp(n) + tail
    return raw[:4] + struct.pack("<I", len(payload)) + payload


# The types, as one line; nodes are numbered in this order.
ALARM_T = "alarm_t{int32 severity, int32 status, string message} alarm"
TIME_T = "time_t{int64 secondsPastEpoch, int32 nanoseconds, int32 userTag}"
TYPES = {
    "nts": f"epics:nt/NTScalar:1.0{{double value, {ALARM_T}, {TIME_T} timeStamp, "
    "struct{double limitLow, double limitHigh, string description, string format, string units} display, "
    "struct{double limitLow, double limitHigh, double minStep} control, "
    "struct{bool active, double lowAlarmLimit, double lowWarningLimit, double highWarningLimit, "
    "double highAlarmLimit, int32 lowAlarmSeverity, int32 lowWarningSeverity, int32 highWarningSeverity, "
    "int32 highAlarmSeverity, double hysteresis} valueAlarm}",
    "nd": "epics:nt/NTNDArray:1.0{union{bool[] booleanValue, int8[] byteValue, int16[] shortValue, "
    "int32[] intValue, int64[] longValue, uint8[] ubyteValue, uint16[] ushortValue, uint32[] uintValue, "
    "uint64[] ulongValue, float[] floatValue, double[] doubleValue} value, "
    "codec_t{string name, any parameters} codec, int64 compressedSize, int64 uncompressedSize, int32 uniqueId, "
    f"{TIME_T} dataTimeStamp, {ALARM_T}, {TIME_T} timeStamp, "
    "dimension_t{int32 size, int32 offset, int32 fullSize, int32 binning, bool reverse}[] dimension, "
    f"epics:nt/NTAttribute:1.0{{string name, any value, string[] tags, string descriptor, {ALARM_T}, "
    f"{TIME_T} timeStamp, int32 sourceType, string source}}[] attribute}}",
}

# More types than the introspection cache remembers (it counts 262,144 nodes and 16-byte pieces at the most).
MANY = 12_000


def variants(name: str, count: int = MANY) -> list[bytes]:
    """A type description under `count` different ids of the same length: types that nobody has met."""
    raw = described(name)
    size = raw[1]
    assert raw[0] == 0x80
    assert size < 0xFE
    stem = raw[2 : 2 + size - 5]
    return [raw[:2] + stem + b"%05d" % i + raw[2 + size :] for i in range(count)]


def strangers(name: str, count: int = MANY) -> list[bytes]:
    """A type description whose ids and member names are all different, in `count` variants: nothing in it was met before."""
    return [bytes(_renamed(described(name), b"%05d" % i)) for i in range(count)]


def _renamed(raw: bytes, mark: bytes) -> bytearray:
    """A description with the last bytes of each id and name replaced; names shorter than the mark are made longer."""
    out = bytearray()
    at = 0

    def label() -> None:
        nonlocal at
        size = raw[at]
        text = raw[at + 1 : at + 1 + size]
        at += 1 + size
        text = text[: max(1, size - len(mark))] + mark if text else text
        out.append(len(text))
        out.extend(text)

    def node() -> None:
        nonlocal at
        code = raw[at]
        out.append(code)
        at += 1
        if code in (0x80, 0x81):
            label()
            members = raw[at]
            out.append(members)
            at += 1
            for _ in range(members):
                label()
                node()
        elif code in (0x88, 0x89):
            node()

    node()
    assert at == len(raw)
    return out
