"""The servers that a client knows of, from their beacons and from their answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, final

from ..network.addresses import Address, text

_log = logging.getLogger("pvafast.search")

# Beacons come every 180 s at least: one that is lost is no server that is lost.
FORGOTTEN_AFTER: Final = 360.0
# A server that restarts all the time, or an attacker, would have a client remember ever more addresses.
_MOST: Final = 20_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """What became of a server.

    kind: "online": it was not known; "changed": another one, with another guid, at an address that is known, as after a
    restart; "offline": no beacon for 360 s. address: where it takes connections. sender: where the beacon or answer that
    tells so came from. version: of the protocol.
    """

    kind: Literal["online", "changed", "offline"]
    guid: bytes
    address: Address
    protocol: str = "tcp"
    version: int = 2
    sender: Address


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconEvent:
    """A beacon. time: when it came, ns since 1970. Its fields are those of messages.Beacon."""

    guid: bytes
    address: Address
    protocol: str
    version: int
    sequence: int
    change_count: int
    sender: Address
    time: int


class _Known:
    __slots__ = ("event", "seen")

    def __init__(self, event: ServerEvent, seen: float) -> None:
        self.event = event
        self.seen = seen


@final
class Servers:
    """By address, the server that was last heard of there. changed: called with each event."""

    def __init__(self, changed: Callable[[ServerEvent], object]) -> None:
        self._changed = changed
        self._known: dict[Address, _Known] = {}
        self._full = False

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[ServerEvent]:
        """Those that are there, each as "online"."""
        for one in self._known.values():
            event = one.event
            yield ServerEvent(
                kind="online",
                guid=event.guid,
                address=event.address,
                version=event.version,
                sender=event.sender,
            )

    def seen(self, guid: bytes, address: Address, version: int, sender: Address, now: float) -> None:
        """A server told that it is there."""
        known = self._known.get(address)
        if known is not None and known.event.guid == guid:
            known.seen = now
            return
        if known is None and len(self._known) >= _MOST:
            if not self._full:
                self._full = True
                _log.warning(
                    "more than %d servers: %s and further ones are not told of", _MOST, text(address)
                )
            return
        event = ServerEvent(
            kind="online" if known is None else "changed",
            guid=guid,
            address=address,
            version=version,
            sender=sender,
        )
        self._known[address] = _Known(event, now)
        _log.debug("server %s %s, guid %s", text(address), event.kind, guid.hex())
        self._changed(event)

    def expire(self, now: float) -> None:
        """Forget those that were not heard of for long."""
        for address, one in list(self._known.items()):
            if now - one.seen > FORGOTTEN_AFTER:
                del self._known[address]
                self._full = False
                event = one.event
                _log.debug("server %s offline", text(address))
                self._changed(
                    ServerEvent(
                        kind="offline",
                        guid=event.guid,
                        address=address,
                        version=event.version,
                        sender=event.sender,
                    )
                )
