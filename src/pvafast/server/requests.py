"""What handlers are given: who asks, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack, final

from .. import normative
from .._backend import value
from ..errors import NormativeError, RemoteError
from ..messages import Status, StatusType
from ..messages.core import AnyBody
from ..normative import Metadata
from ..request import Request

if TYPE_CHECKING:
    from .pv import PV

Action = Literal["read", "write", "call"]

Value = value.Value
AnyValue = value.AnyValue


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A client. user: its account, "" of an anonymous one. host: its IP address. claimed_host: what it says of itself.

    method: how it told who it is, "ca" or "anonymous"; neither is proof. address: as a socket names it.
    """

    address: Any
    host: str
    method: str = "anonymous"
    user: str = ""
    claimed_host: str = ""

    def __str__(self) -> str:
        where = f"{self.host}:{self.address[1]}" if isinstance(self.address, tuple) else self.host
        # It goes into the log, and the name is whatever the client says.
        return f"{ascii(self.user[:64])[1:-1]}@{where}" if self.user else where


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a client asks of a PV. name: of the channel. request: the pvRequest, with its options."""

    pv: PV
    name: str
    peer: Peer
    request: Request


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Put(_Asked):
    """A client wants to write. raw: what the PV would be afterwards; `raw.changed` are the fields that the client sets."""

    raw: Value

    @property
    def value(self) -> Any:
        """`raw` as `normative.read` reads it: a number with its alarm and time, a Frame; `raw` itself of other types."""
        try:
            return normative.read(self.raw)
        except NormativeError:
            return self.raw

    def post(self, **meta: Unpack[Metadata]) -> None:
        """Post what the client sets, with a time stamp of now unless it sets one."""
        self.pv.post(self.raw, stamp=True, **meta)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Call(_Asked):
    """A client calls (RPC). raw: the argument as it came: a Value, an AnyValue, or None."""

    raw: AnyBody

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name: the query of an NTURI, or the members of a bare structure; empty of anything else."""
        if not isinstance(self.raw, Value) or not self.raw.type.is_structure:
            return {}
        found = self.raw
        if ("query",) in found.type and found.type[("query",)].is_structure:
            found = found[("query",)]
        return {name: found[(name,)] for name in found}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Process(_Asked):
    """A client asks to process."""


def status_of(error: BaseException) -> Status:
    """The status that a client is told of an exception: its text; a RemoteError goes as it is."""
    if isinstance(error, RemoteError):
        type = StatusType[error.severity] if error.severity in ("ERROR", "FATAL") else StatusType.ERROR
        return Status(type, error.message, error.stack)
    if isinstance(error, KeyError):
        return Status(StatusType.ERROR, f"KeyError: {error}")  # whose text is but the key
    return Status(StatusType.ERROR, str(error) or type_name(error))


def type_name(x: object) -> str:
    """The name of the class."""
    return x.__class__.__name__


@final
class Refused(RemoteError):
    """To raise in a handler: the client is told the text, and nothing is logged. Other exceptions are logged, too."""

    def __init__(self, message: str) -> None:
        super().__init__("ERROR", message)

    def __reduce__(self) -> tuple[object, ...]:
        return Refused, (self.message,)
