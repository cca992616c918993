"""Records as text: `line` says all that a person wants at first sight, `fields` the values below it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from .. import messages
from .._backend import bitset, introspection, value
from .._types import STRUCTURE
from .._valuetext import (
    delta_lines,
    format_scalar,
    format_tree,
    leaf_paths,
    printable,
    printable_tree,
    text_of,
)
from ..connection import Update
from ..errors import PvaError
from ..request import format as format_request
from .records import Record

# Names of a search, changed fields, characters of a string that a line shows.
_NAMES: Final = 8
_FIELDS: Final = 3
_CHARACTERS: Final = 60

_seconds: tuple[str, str] = ("", "")


def line(record: Record) -> str:
    """The record in one line: time (UTC), source → destination, command, PV, what it says."""
    pv = record.pv
    if not isinstance(pv, str):
        names = ", ".join(name or "?" for name in pv[:_NAMES])
        pv = f"{names} and {len(pv) - _NAMES} more" if len(pv) > _NAMES else names
    text = f"{moment(record.time)}  {record.src} → {record.dst}  {record.command}"
    if pv:
        text = f"{text}  {pv}"
    said = what(record)
    return printable(f"{text}  {said}" if said else text)


def moment(time: str) -> str:
    """Epoch seconds as date and time, UTC, with all digits."""
    global _seconds
    whole, dot, rest = time.partition(".")
    seconds, text = _seconds
    if whole != seconds:
        try:
            text = datetime.fromtimestamp(int(whole), UTC).strftime("%Y-%m-%d %H:%M:%S")
        except (ValueError, OverflowError, OSError):
            return time  # a clock that shows no year of ours
        _seconds = whole, text
    return f"{text}{dot}{rest}"


def what(record: Record) -> str:
    """What a record says, in a few words."""
    event = record.event
    if isinstance(event, Update) and not event.overrun and not event.note:
        held = event.value
        return _changes(held, held.changed)
    damage = record.damage
    if damage is not None:
        counts = [f"{damage.lost} bytes not decoded"] if damage.lost else []
        counts += [f"{damage.missing} bytes missing"] if damage.missing and damage.lost else []
        return f"!! {record.note} ({', '.join([*counts, f'at {damage.offset} of the stream'])})"
    held = record.value
    changed = record.changed
    words = []
    if not isinstance(event, Update):
        message = record.message
        words = [about(message) if message is not None else "", _status(record, message)]
    if record.type is not None:
        words.append(kind(record.type))
    if changed is not None:
        words.append(_changes(held, changed))
    elif held is not None:
        words.append(short(held))
    if record.overrun:
        words.append(f"overrun of {', '.join(_names(held.type, record.overrun))}")
    if record.note:
        words.append(f"[{record.note}]")
    return " ".join(word for word in words if word)


def _status(record: Record, message: messages.PvaMessage | None) -> str:
    status = record.status
    if status is None:
        return ""
    if status.ok and not status.message:
        # Where there is an answer in it, it needs no ok.
        answer = record.type is not None or record.value is not None
        return "" if answer or isinstance(message, messages.CreateChannelReply) else "ok"
    return f"{status.type.name} {format_scalar(status.message)}"


def _names(type: introspection.FieldDesc, bits: bitset.BitSet) -> list[str]:
    return [".".join(path) for path in leaf_paths(type, bits)]


def _changes(held: value.Value, changed: bitset.BitSet) -> str:
    if held.type.code != STRUCTURE:
        return short(held[""])
    paths = leaf_paths(held.type, changed)
    if not paths:
        return "no changes"
    shown = paths if len(paths) <= _FIELDS else [path for path in paths if path == ("value",)]
    told = ", ".join([f"{'.'.join(path)}={short(held[path])}" for path in shown])
    more = len(paths) - len(shown)
    if not more:
        return told
    return f"{told} and {more} more fields" if told else f"{more} field{'' if more == 1 else 's'}"


def kind(type: introspection.FieldDesc) -> str:
    """A type in a word or two."""
    return type.id or f"structure of {len(type.members)}" if type.code == STRUCTURE else type.format("short")


def short(leaf: Any) -> str:
    """A value in a few characters."""
    if leaf.__class__ is int:
        return str(leaf)
    if isinstance(leaf, float | int | str):
        text = format_scalar(leaf)
        return text if len(text) <= _CHARACTERS else f'{text[: _CHARACTERS - 4]}..."'
    if isinstance(leaf, np.ndarray):
        return f"{leaf.dtype.name}[{len(leaf)}]"
    if isinstance(leaf, list):
        return f"[{len(leaf)}]"
    if isinstance(leaf, value.UnionValue):
        return f"{leaf.name}:{short(leaf.value)}"
    if isinstance(leaf, value.AnyValue):
        return short(leaf.value)
    if isinstance(leaf, value.Value):
        if leaf.type.code != STRUCTURE:
            return short(leaf[""])
        members = list(leaf.type.members)
        told = ", ".join(f"{name}={short(leaf[(name,)])}" for name in members[:_FIELDS])
        return f"{{{told}{', ...' if len(members) > _FIELDS else ''}}}"
    return "null"


def about(message: messages.PvaMessage) -> str:
    """What is special of a message: its subcommand, and its own fields."""
    words = _about(message)
    sub = getattr(message, "sub", 0)
    if sub & 0x10 and not isinstance(message, messages.MonitorDestroy | messages.MonitorFinal):
        words = f"{words} and DESTROY".removeprefix(" and ")
    if message.trailing:
        words = f"{words} +{len(message.trailing)} bytes".lstrip()
    return words


def _about(m: messages.PvaMessage) -> str:
    match m:
        case messages.MonitorInit(nfree=int()):
            return f"INIT {_request(m.request)} nfree={m.nfree}"
        case messages.InitRequest():
            return f"INIT {_request(m.request)}"
        case messages.PutGetInitReply() if m.put_type is not None and m.get_type is not None:
            return f"INIT put {kind(m.put_type)}, get {kind(m.get_type)}"
        case messages.InitReply():
            return "INIT"
        case messages.MonitorAck():
            return f"ACK nfree={m.nfree}"
        case messages.MonitorStart():
            return "START"
        case messages.MonitorStop():
            return "STOP"
        case messages.MonitorDestroy():
            return "DESTROY"
        case messages.MonitorFinal():
            return "END"
        case messages.PutGetBack() | messages.PutGetBackReply():
            return "GET"
        case messages.PutGetGetGet() | messages.PutGetGetGetReply():
            return "GET"
        case messages.PutGetGetPut() | messages.PutGetGetPutReply():
            return "GET PUT"
        case messages.ArrayGet():
            return f"GET offset={m.offset} count={m.count} stride={m.stride}"
        case messages.ArrayPut():
            return f"PUT offset={m.offset} stride={m.stride}"
        case messages.ArraySetLength():
            return f"SET LENGTH {m.length}"
        case messages.ArrayGetLength() | messages.ArraySetLengthReply():
            return "GET LENGTH" if isinstance(m, messages.ArrayGetLength) else "SET LENGTH"
        case messages.ArrayGetLengthReply():
            return f"GET LENGTH {m.length}" if m.status.ok else "GET LENGTH"
        case messages.GetField():
            return m.field
        case messages.CreateChannel():
            return ", ".join(f"cid={cid}" for cid, _ in m.channels[:_NAMES])
        case messages.CreateChannelReply():
            return f"cid={m.cid} sid={m.sid}" if m.status.ok else f"cid={m.cid}"
        case messages.DestroyChannel():
            return f"cid={m.cid} sid={m.sid}"
        case messages.Search():
            words = [f"{len(m.channels)} names"] if len(m.channels) > 1 else []
            words += ["who is there?"] if not m.channels else []
            words += ["reply required"] if m.reply_required and m.channels else []
            words += [f"reply to {m.address}:{m.port}"] if m.address else []
            return ", ".join(words)
        case messages.SearchResponse():
            who = f"{m.protocol} {m.address or '*'}:{m.port}, guid {m.guid.hex()}"
            return f"found at {who}" if m.found else f"not found, says {who}"
        case messages.Beacon():
            return (
                f"{m.protocol} {m.address or '*'}:{m.port}, guid {m.guid.hex()}, "
                f"sequence {m.sequence}, change {m.change_count}"
            )
        case messages.OriginTag():
            return f"received on {m.address or '*'}"
        case messages.SetByteOrder():
            return f"{m.byteorder}-endian"
        case messages.ConnectionValidationRequest():
            return f"offers {', '.join(m.methods)}"
        case messages.ConnectionValidationResponse():
            return f"as {m.method} {short(m.data)}" if m.data is not None else f"as {m.method}"
        case messages.Echo():
            return f"{len(m.payload)} bytes" if m.payload else ""
        case messages.RemoteMessage():
            return f"{m.severity.name} {format_scalar(m.text)}"
        case messages.AclChange():
            return f"cid={m.cid} rights={m.rights}"
        case messages.Authnz():
            return short(m.data)
        case messages.MultipleData():
            return f"{len(m.replies)} replies"
        case messages.Unknown():
            return f"{len(m.payload)} bytes"
        case messages.Control():
            return str(m.value)
    return ""


def _request(request: messages.AnyBody) -> str:
    """A pvRequest as its text."""
    if not isinstance(request, value.Value):
        return short(request)
    try:
        text = format_request(request)
    except PvaError:
        return short(request)  # a structure, but none of the kind that a pvRequest is
    return "all fields" if text in ("", "field()") else text.replace("field()", "")


def fields(record: Record, most: int) -> Iterator[str]:
    """The changed fields of the value, all of it where it is not known what changed; arrays of `most` elements (0: all)."""
    held = record.value
    changed = record.changed
    if changed is None or held.type.code != STRUCTURE:
        if isinstance(held, value.AnyValue):
            held = held.value if isinstance(held.value, value.Value) else value.Value(held.type, held.value)
        yield printable_tree(format_tree(held, most))
        return
    for parts in delta_lines(held, changed, most):
        yield printable(text_of(parts))
