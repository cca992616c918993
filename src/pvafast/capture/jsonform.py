"""Records as JSON objects: one a line, pure ASCII.

time              epoch seconds with every digit of the capture, a number
src, dst          "address:port"; transport: "tcp" or "udp"; connection: the number of the TCP connection
direction         the sender's role, "client" or "server"
command           the specification's name in capitals; subcommand: a number
sid, cid, ioid    numbers, where they are known; pv: a string, in SEARCH and SEARCH_RESPONSE a list of strings
status            {"type", "message", "stack"}
type              the type that the message brings, as text
changed, overrun  lists of dotted leaf names
value             the value as the receiver holds it after this message; fields never seen are left out
message           what else the message says, by the names of pvafast.messages
note              what could not be known; damage: {"reason", "path", "offset", "lost", "missing"}

Values are in the forms of pvafast._valuejson.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, TypeAlias

from .. import messages
from .._backend import bitset, introspection, value
from .._types import STRUCTURE
from .._valuejson import Form, encode, leaf_names
from ..connection import Update
from .records import Record

# Fields of messages that have a place of their own, or say nothing.
_PLACED: Final = frozenset(
    {
        "sid", "cid", "ioid", "status", "type", "value", "overrun", "trailing", "raw", "reason", "destroy", "bits", "zeros",
        "sub",
    }
)  # fmt: skip

# (name, path from the root, members of a structure) of what is shown.
Plan: TypeAlias = "tuple[tuple[str, tuple[str, ...], Plan | None], ...]"
# Of the types and fields seen last, which come again and again.
_plans: dict[tuple[introspection.FieldDesc, bitset.BitSet], Plan] = {}


def _plan(type: introspection.FieldDesc, bits: bitset.BitSet) -> Plan:
    """What is shown of a structure of which these bits were seen."""
    key = type, bits
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= 256:
            _plans.clear()
        plan = _plans[key] = tuple(_seen(type, 0, (), frozenset(bits), 0 in bits))
    return plan


def _seen(
    type: introspection.FieldDesc, at: int, path: tuple[str, ...], bits: frozenset[int], whole: bool
) -> Iterator[tuple[str, tuple[str, ...], Plan | None]]:
    at += 1
    for name, member in type.members.items():
        this = whole or at in bits
        if member.code == STRUCTURE:
            below = tuple(_seen(member, at, (*path, name), bits, this))
            if below or this:
                yield name, (*path, name), below
        elif this:
            yield name, (*path, name), None
        at += len(member)


def dumps(record: Record, max_elements: int = 64) -> str:
    """The record as one line of JSON, without the line end. max_elements: 0 for no limit."""
    head = f'{{"time": {record.time}, '
    return head + encode(as_object(record, max_elements))[1:]


def as_object(record: Record, max_elements: int = 64) -> dict[str, Any]:
    """What a line says, but for the time."""
    form = _Form(max_elements)
    found: dict[str, Any] = {"src": record.src, "dst": record.dst, "transport": record.transport}
    if record.connection is not None:
        found["connection"] = record.connection
    if record.direction:
        found["direction"] = record.direction
    found["command"] = record.command
    for name in ("subcommand", "sid", "cid", "ioid"):
        number = getattr(record, name)
        if number is not None:
            found[name] = int(number)
    pv = record.pv
    if isinstance(pv, tuple):
        found["pv"] = list(pv)
    elif pv:
        found["pv"] = pv
    status = record.status
    if status is not None:
        found["status"] = form.plain(status)
    if record.type is not None:
        found["type"] = record.type.format("short")
    message = None if isinstance(record.event, Update) else record.message
    held = record.value
    if held is not None:
        changed = record.changed
        if changed is not None:
            found["changed"] = leaf_names(held.type, changed)
            if record.command == "MONITOR":
                found["overrun"] = leaf_names(held.type, record.overrun)
        if isinstance(held, value.Value) and changed is not None:
            found["value"] = form.seen(held, record.seen)
        else:
            found["value"] = form.leaf(held)
    elif (
        isinstance(message, messages.Rpc | messages.RpcReply)
        and not message.reason
        and (status is None or status.ok)
    ):
        found["value"] = None
    damage = record.damage
    if damage is not None:
        found["damage"] = {
            "reason": damage.reason, "path": damage.path, "offset": damage.offset, "lost": damage.lost, "missing": damage.missing,
        }  # fmt: skip
        return found
    if message is not None:
        rest = form.fields(message, held is not None)
        if rest:
            found["message"] = rest
    if record.note:
        found["note"] = record.note
    return found


class _Form(Form):
    """Values, and what messages say."""

    def seen(self, held: value.Value, bits: bitset.BitSet) -> Any:
        """A Value without the fields that have never been seen."""
        if held.type.code != STRUCTURE:
            return self.leaf(held)
        return self._build(held, _plan(held.type, bits))

    def _build(self, held: value.Value, plan: Plan) -> dict[str, Any]:
        leaf = self.leaf
        return {
            name: leaf(held[path]) if below is None else self._build(held, below)
            for name, path, below in plan
        }

    def fields(self, message: messages.PvaMessage, with_value: bool) -> dict[str, Any]:
        """What a message says that has no place of its own in the record."""
        found = {}
        for field in dataclasses.fields(message):
            if field.name in _PLACED:
                continue
            item = getattr(message, field.name)
            if item is not None and not (field.name == "changed" and with_value):
                found[field.name] = self.plain(item)
        if message.trailing:
            found["trailing"] = message.trailing.hex()
        return found

    def plain(self, item: Any) -> Any:
        """The value of a message's field."""
        if isinstance(item, Enum):
            return item.name
        if isinstance(item, bytes | bytearray | memoryview):
            return bytes(item).hex()
        if isinstance(item, introspection.FieldDesc):
            return item.format("short")
        if isinstance(item, bitset.BitSet):
            return list(item)
        if isinstance(item, messages.Status):
            return {"type": item.type.name, "message": item.message, "stack": item.stack}
        if isinstance(item, messages.PvaMessage):
            return {"message": type(item).__name__, **self.fields(item, False)}
        if isinstance(item, tuple):
            return [self.plain(part) for part in item]
        return self.leaf(item)
