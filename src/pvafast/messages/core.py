"""What all messages share: command numbers, Status, the state of an operation, the base class.

A message class says its fields twice: as annotated attributes, for people and type checkers, and as `layout`, the
order and the encoding on the wire (see fields.py). Reading and writing both follow `layout`, so they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    TypeAlias,
    TypeVar,
    dataclass_transform,
    final,
)

from .._backend import bitset, introspection, projection, value
from ..errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .fields import Layout

NO_BITS: Final = bitset.BitSet()
# Under names that no attribute of a message hides from annotations.
Value: TypeAlias = value.Value
AnyValue: TypeAlias = value.AnyValue
FieldDesc: TypeAlias = introspection.FieldDesc
# An Any* of a message: a structure is its Value, anything else an AnyValue, the null type None.
AnyBody: TypeAlias = Value | AnyValue | None
# How decode() finds the operation of an ioid.
Operations: TypeAlias = "Mapping[int, Operation] | Callable[[int], Operation | None]"


class Command(IntEnum):
    """Application messages (WIRE 7 to 9)."""

    BEACON = 0
    CONNECTION_VALIDATION = 1
    ECHO = 2
    SEARCH = 3
    SEARCH_RESPONSE = 4
    AUTHNZ = 5
    ACL_CHANGE = 6
    CREATE_CHANNEL = 7
    DESTROY_CHANNEL = 8
    CONNECTION_VALIDATED = 9
    GET = 10
    PUT = 11
    PUT_GET = 12
    MONITOR = 13
    ARRAY = 14
    DESTROY_REQUEST = 15
    PROCESS = 16
    GET_FIELD = 17
    MESSAGE = 18
    MULTIPLE_DATA = 19
    RPC = 20
    CANCEL_REQUEST = 21
    ORIGIN_TAG = 22


class ControlCommand(IntEnum):
    """Control messages (WIRE 3): a header, and 32 bits in place of the size."""

    MARK = 0
    ACK_MARK = 1
    SET_BYTE_ORDER = 2
    ECHO_REQUEST = 3
    ECHO_RESPONSE = 4


class StatusType(IntEnum):
    """How an operation ended."""

    OK = 0
    WARNING = 1
    ERROR = 2
    FATAL = 3


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """The outcome of a request. A type above 3 on the wire reads as FATAL."""

    type: StatusType = StatusType.OK
    message: str = ""
    stack: str = ""

    OK: ClassVar[Status]

    @property
    def ok(self) -> bool:
        """The operation was done: OK or WARNING."""
        return self.type <= StatusType.WARNING

    def raise_for_status(self) -> None:
        """RemoteError if the operation failed."""
        if self.type > StatusType.WARNING:
            raise RemoteError(self.type.name, self.message, self.stack)

    def __repr__(self) -> str:
        if not self.message and not self.stack:
            return f"Status({self.type.name})"
        stack = f", stack={self.stack!r}" if self.stack else ""
        return f"Status({self.type.name}, {self.message!r}{stack})"


Status.OK = Status()


class Operation:
    """What one end knows of a channel operation, by ioid: decoding a reply, or a PUT, needs the type of its INIT reply.

    decode() reads it and never writes it: learn() takes over what a reply told, `type` and `put_type` from an INIT reply,
    `value` and `put_value` from each that carries data. Setting a type forgets the value that was of the old one.
    """

    __slots__ = (
        "_fields",
        "_put_type",
        "_reads",
        "_type",
        "command",
        "ioid",
        "pipelined",
        "put_value",
        "pv",
        "request",
        "seen",
        "sid",
        "steady",
        "value",
    )

    def __init__(
        self,
        command: int,
        ioid: int,
        *,
        sid: int = 0,
        pv: str = "",
        request: AnyBody = None,
        type: FieldDesc | None = None,
        put_type: FieldDesc | None = None,
        pipelined: bool = False,
    ) -> None:
        self.command = command
        self.ioid = ioid
        self.sid = sid
        self.pv = pv
        self.request = request
        # The values as they stood after the last message: the bases that the next update is laid over.
        self.value: Value | None = None
        self.put_value: Value | None = None
        self._type = type
        self._put_type = put_type
        self._fields: tuple[str | tuple[str, ...], ...] | None = None
        self._reads: FieldDesc | projection.Projection | None = type
        self.pipelined = pipelined
        # For monitor.read_updates(): what `reads` is, once updates need no further thought; what an Update says was seen.
        self.steady: FieldDesc | projection.Projection | None = None
        self.seen: Any = NO_BITS

    @property
    def base(self) -> Value | None:
        """What the next update is laid over: `value` as it was received, whatever a program has changed in it since."""
        return None if self.value is None else self.value._received_()

    @property
    def type(self) -> FieldDesc | None:
        """Type of the data; of PUT_GET: of the data got. None: not known."""
        return self._type

    @type.setter
    def type(self, type: FieldDesc | None) -> None:
        self._type = type
        self.value = None
        self._read_by()

    @property
    def fields(self) -> tuple[str | tuple[str, ...], ...] | None:
        """The fields that are decoded of the data got, as a Projection takes them; None: all.

        Can be set at any time, also before the type is known. A name that the type does not have counts for nothing; a field
        that is named anew reads as zero until it comes.
        """
        return self._fields

    @fields.setter
    def fields(self, fields: Iterable[str | tuple[str, ...]] | None) -> None:
        if isinstance(fields, str):
            raise TypeError(f"fields are a list of names, not {fields!r}")
        self._fields = None if fields is None else tuple(fields)
        self._read_by()

    @property
    def reads(self) -> FieldDesc | projection.Projection | None:
        """What the data got is decoded by: the type, or the Projection to `fields`."""
        return self._reads

    def _read_by(self) -> None:
        self.steady = None
        self._reads = self._type
        if self._type is not None and self._fields is not None:
            self._reads = projection.Projection(self._type, self._fields, strict=False)

    @property
    def put_type(self) -> FieldDesc | None:
        """PUT_GET: type of the data put."""
        return self._put_type

    @put_type.setter
    def put_type(self, type: FieldDesc | None) -> None:
        self._put_type = type
        self.put_value = None

    @property
    def get_type(self) -> FieldDesc | None:
        """PUT_GET: type of the data got; the same as `type`."""
        return self._type

    @property
    def channel_sid(self) -> int | None:
        """The server's number of the channel."""
        return self.sid

    @property
    def channel_cid(self) -> int | None:
        """The client's number of the channel, where it is known."""
        return None

    def update_message(self, update: Any) -> PvaMessage:
        """An Update of this subscription as a MonitorUpdate."""
        from .monitor import MonitorUpdate

        return MonitorUpdate(ioid=self.ioid, value=update.value, overrun=update.overrun)

    def __repr__(self) -> str:
        name = Command(self.command).name if self.command in Command._value2member_map_ else str(self.command)
        pv = f" {self.pv!r}" if self.pv else ""
        return f"<Operation {name}{pv} ioid={self.ioid} sid={self.sid}>"


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(cls: type[_T]) -> type[_T]:
    """Make a message class: frozen, slotted, keyword-only, with the repr of PvaMessage."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)(cls)


# Longer byte strings are cut in a repr.
_REPR_BYTES: Final = 24


@message
class PvaMessage:
    """One message.

    trailing: payload bytes behind what the layout tells of; never encoded.
    raw: payload bytes that could not be decoded because a type is not known: the field that they begin with is None and
    those behind it have their defaults. reason: why. A message with raw bytes cannot be encoded.
    """

    # Who sends it: True the server, False the client, None both.
    from_server: ClassVar[bool | None] = None
    # The payload: what comes before the class is known (ids and sub byte of operations), and the rest.
    head: ClassVar[Layout] = ()
    layout: ClassVar[Layout] = ()

    trailing: bytes = b""
    raw: bytes = b""
    reason: str = ""

    @property
    def command(self) -> int:
        """The number of the message in the header."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = []
        fields = dataclasses.fields(self)
        own = len(dataclasses.fields(PvaMessage))
        for field in (*fields[own:], *fields[:own]):
            x = getattr(self, field.name)
            if (
                field.default is not dataclasses.MISSING
                and type(x) is type(field.default)
                and x == field.default
            ):
                continue
            if isinstance(x, bytes) and len(x) > _REPR_BYTES:
                shown.append(f"{field.name}=<{len(x)} bytes {x[:_REPR_BYTES].hex()}...>")
            else:
                shown.append(f"{field.name}={x!r}")
        return f"{type(self).__name__}({', '.join(shown)})"
