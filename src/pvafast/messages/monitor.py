"""MONITOR: subscriptions (WIRE 9)."""

from __future__ import annotations

from typing import Final

from .._backend import bitset
from ..errors import EncodeError
from .core import (
    Command,
    Value,
    message,
)
from .fields import (
    ANY,
    BITSET,
    STATUS,
    U32,
    UPDATE,
    Field,
    In,
    Out,
    wire,
)
from .operations import DESTROY, INIT, InitRequest, StatusReply, SubReply, SubRequest, TypedInitReply

NO_BITS: Final = bitset.BitSet()


def _read_free(c: In) -> int | None:
    return c.r.u32() if c.sub & 0x80 else None


def _write_free(c: Out, x: int | None) -> None:
    if x is not None:
        c.w.u32(x)
    elif c.message.sub & 0x80:
        raise EncodeError("bit 80 goes with nfree")


@message
class MonitorInit(InitRequest):
    """Open a subscription. `nfree`: with flow control (pipeline), so many updates may come before the first MonitorAck.

    Flow control also needs the option record._options.pipeline = "true" in the pvRequest.
    """

    command = Command.MONITOR
    layout = wire(request=ANY, nfree=Field(_read_free, _write_free))

    own_bits = DESTROY | 0x80
    nfree: int | None = None

    @property
    def sub(self) -> int:
        """The sub byte."""
        return INIT | self.bits | (DESTROY if self.destroy else 0) | (0 if self.nfree is None else 0x80)


@message
class MonitorInitReply(TypedInitReply):
    """The subscription is open; updates flow once it is started."""

    command = Command.MONITOR


@message
class MonitorStart(SubRequest):
    """Let updates flow."""

    command = Command.MONITOR
    base_sub = 0x44


@message
class MonitorStop(SubRequest):
    """Let no more updates flow."""

    command = Command.MONITOR
    base_sub = 0x04


@message
class MonitorAck(SubRequest):
    """Flow control: `nfree` more updates may come. pvAccessCPP ignores other bits beside it."""

    command = Command.MONITOR
    base_sub = 0x80
    layout = wire(nfree=U32)

    nfree: int


@message
class MonitorDestroy(SubRequest):
    """End the subscription."""

    command = Command.MONITOR
    base_sub = DESTROY

    destroy: bool = True


@message
class MonitorUpdate(SubReply):
    """The fields that changed. `overrun`: those that changed more than once, of which older values are lost.

    `value` is laid over the value of the update before; `value.changed` are the bits of this message. When the type is
    not known it is None.
    """

    command = Command.MONITOR
    layout = wire(value=UPDATE, overrun=BITSET)

    value: Value | None
    overrun: bitset.BitSet = NO_BITS


def _read_last(c: In) -> Value | None:
    last: Value | None = UPDATE.read(c) if c.r.left else None
    return last


def _write_last(c: Out, x: Value | None) -> None:
    if x is not None:
        UPDATE.write(c, x)


def _read_last_overrun(c: In) -> bitset.BitSet:
    return NO_BITS if c.values["value"] is None else bitset.BitSet.read(c.r)


def _write_last_overrun(c: Out, x: bitset.BitSet) -> None:
    if c.message.value is not None:
        BITSET.write(c, x)
    elif x:
        raise EncodeError("overrun bits without a value")


@message
class MonitorFinal(StatusReply):
    """The server ends the subscription, perhaps with a last update (`value` is None if not)."""

    command = Command.MONITOR
    base_sub = DESTROY
    layout = wire(
        status=STATUS,
        value=Field(_read_last, _write_last),
        overrun=Field(_read_last_overrun, _write_last_overrun),
    )

    destroy: bool = True
    value: Value | None = None
    overrun: bitset.BitSet = NO_BITS


@message
class MonitorError(StatusReply):
    """A request on a subscription failed: pvAccessCPP repeats the sub byte of the request, 44 or 04."""

    command = Command.MONITOR

    bits: int = 0x44
