"""Discovery (WIRE 7): beacons and searches, over UDP; searches over TCP as well."""

from __future__ import annotations

from typing import Final

from .core import (
    AnyBody,
    Command,
    PvaMessage,
    message,
)
from .fields import (
    ANY,
    BOOL,
    CHANNELS,
    GUID,
    IDS,
    STRING,
    STRINGS,
    U8,
    U16,
    U32,
    Field,
    In,
    Out,
    wire,
)


def _peek_zeros(c: In) -> bool:
    pos = c.r.pos
    if c.r.left < 16:
        return False
    zeros = not any(c.r.bytes(16))
    c.r.pos = pos
    return zeros


def _write_address(c: Out, x: str) -> None:
    c.w.address(x or ("::" if getattr(c.message, "zeros", False) else ""))


# An address is read twice: once for whether it is sixteen zeros, which takes no bytes, then for its text.
_ZEROS: Final = Field(_peek_zeros, lambda c, x: None)
_ADDRESS: Final = Field(lambda c: c.r.address(), _write_address)


def _read_flags(c: In) -> int:
    flags = c.r.u8()
    c.r.skip(3)
    return flags


def _write_flags(c: Out, x: int) -> None:
    c.w.u8(x)
    c.w.bytes(bytes(3))


@message
class Beacon(PvaMessage):
    """A server says that it lives. `change_count` moves with its list of PVs; a new `guid` is a new server process."""

    command = Command.BEACON
    from_server = True
    layout = wire(
        guid=GUID,
        flags=U8,
        sequence=U8,
        change_count=U16,
        zeros=_ZEROS,
        address=_ADDRESS,
        port=U16,
        protocol=STRING,
        server_status=ANY,
    )

    guid: bytes
    flags: int = 0
    sequence: int = 0
    change_count: int = 0
    # "": the address that the datagram comes from.
    address: str = ""
    # How "" is written: ::ffff:0.0.0.0, or sixteen zeros.
    zeros: bool = False
    port: int = 5075
    protocol: str = "tcp"
    server_status: AnyBody = None


# Bits of Search.flags.
REPLY_REQUIRED: Final = 0x01
REPLY_TO_SOURCE_PORT: Final = 0x02
UNICAST: Final = 0x80


@message
class Search(PvaMessage):
    """Who has these channels? `channels`: (cid, name) pairs; none with `reply_required`: which servers are there?"""

    command = Command.SEARCH
    from_server = False
    layout = wire(
        sequence=U32,
        flags=Field(_read_flags, _write_flags),
        zeros=_ZEROS,
        address=_ADDRESS,
        port=U16,
        protocols=STRINGS,
        channels=CHANNELS,
    )

    sequence: int
    flags: int = 0
    # Where the reply goes. "": to the address that the datagram comes from, over TCP to the same connection.
    address: str = ""
    # How "" is written: ::ffff:0.0.0.0 (pvAccessCPP), or sixteen zeros (pvxs).
    zeros: bool = False
    port: int = 0
    # None: any.
    protocols: tuple[str, ...] = ("tcp",)
    channels: tuple[tuple[int, str], ...] = ()

    @property
    def reply_required(self) -> bool:
        """Servers answer even if they have none of the channels."""
        return bool(self.flags & REPLY_REQUIRED)

    @property
    def unicast(self) -> bool:
        """This datagram was sent to one host: one of its servers got it and must forward it to the others."""
        return bool(self.flags & UNICAST)


@message
class SearchResponse(PvaMessage):
    """A server has the channels `cids` of the Search of this `sequence`; not `found`: it has none, but it is there."""

    command = Command.SEARCH_RESPONSE
    from_server = True
    layout = wire(
        guid=GUID,
        sequence=U32,
        zeros=_ZEROS,
        address=_ADDRESS,
        port=U16,
        protocol=STRING,
        found=BOOL,
        cids=IDS,
    )

    guid: bytes
    sequence: int
    # Of the server. "": the address that the datagram comes from.
    address: str = ""
    # How "" is written: ::ffff:0.0.0.0, or sixteen zeros.
    zeros: bool = False
    port: int = 5075
    protocol: str = "tcp"
    found: bool = True
    cids: tuple[int, ...] = ()


@message
class OriginTag(PvaMessage):
    """In front of a forwarded search: the interface on which the search was first received."""

    command = Command.ORIGIN_TAG
    layout = wire(zeros=_ZEROS, address=_ADDRESS)

    address: str = ""
    # How "" is written: ::ffff:0.0.0.0, or sixteen zeros.
    zeros: bool = False
