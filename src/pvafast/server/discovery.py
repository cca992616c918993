"""How a server is found: answers to searches, and beacons."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from .. import messages
from ..network.addresses import Address, text
from ..network.config import ServerConfig
from ..network.loop import Handle, Loop
from ..network.udp import Arrived, Listener, Sender, targets

_log = logging.getLogger("pvafast.server")

# At first clients learn quickly that a server is there, afterwards beacons only say that it still is.
_FIRST_BEACONS: Final = 10
_SLOW_PERIOD: Final = 180.0
# Ids in one datagram: a search of 64 KiB holds more of them than an answer that is not cut into fragments.
_IDS: Final = 300


def new_guid() -> bytes:
    """Twelve bytes that name a server from its start to its end."""
    return secrets.token_bytes(12)


def answer(
    search: messages.Search, *, guid: bytes, tcp_port: int, has: Callable[[str], bool]
) -> messages.SearchResponse | None:
    """What a server answers to a search; None: nothing."""
    if search.protocols and "tcp" not in search.protocols:
        return None
    cids = tuple(cid for cid, name in search.channels if name and has(name))
    if not cids and not search.reply_required:
        return None
    return messages.SearchResponse(
        guid=guid, sequence=search.sequence, port=tcp_port, found=bool(cids), cids=cids
    )


@final
class Discovery:
    """Answers searches over UDP and sends beacons, from its making until close(). OSError if it can listen nowhere.

    has: whether the server has a PV of that name; it is called for every name that anyone on the network looks for, from
    the loop. What it raises is told in the log, and counts as no.
    """

    def __init__(
        self, loop: Loop, config: ServerConfig, guid: bytes, tcp_port: int, has: Callable[[str], bool]
    ) -> None:
        self._loop = loop
        self._guid = guid
        self._tcp_port = tcp_port
        self._has = has
        self._failed = False
        # Hosts that are not answered, and host and port of programs that are not.
        self._ignored = {one.host if not one.port else one.address for one in config.ignore_addr_list}
        endpoints = config.udp_endpoints()
        self._listener = Listener(loop, endpoints, config.broadcast_port, searched=self._search)
        automatic = endpoints if config.auto_beacon_addr_list else ()
        self._beacons = Sender(loop, targets(config.beacon_addr_list, automatic, self.udp_port))
        self._period = config.beacon_period
        self._sent = 0
        self._changes = 0
        self._timer: Handle = loop.call_soon(self._beacon)

    @property
    def udp_port(self) -> int:
        """Where searches are listened for."""
        return self._listener.port

    def changed(self) -> None:
        """The list of PVs has changed: beacons tell so."""
        self._changes = (self._changes + 1) & 0xFFFF

    def close(self) -> None:
        """Answer no more."""
        self._timer.cancel()
        self._listener.close()
        self._beacons.close()

    def _beacon(self) -> None:
        beacon = messages.Beacon(
            guid=self._guid, sequence=self._sent & 0xFF, change_count=self._changes, port=self._tcp_port
        )
        for target in self._beacons.targets:
            self._beacons.send(beacon, target)
        self._sent += 1
        self._timer = self._loop.call_later(
            self._period if self._sent <= _FIRST_BEACONS else max(self._period, _SLOW_PERIOD), self._beacon
        )

    def _search(self, search: messages.Search, to: Address, arrived: Arrived) -> None:
        if arrived.source[0] in self._ignored or arrived.source in self._ignored:
            return
        found = answer(search, guid=self._guid, tcp_port=self._tcp_port, has=self._safely_has)
        if found is None:
            return
        try:
            for i in range(0, max(1, len(found.cids)), _IDS):
                self._listener.answer(replace(found, cids=found.cids[i : i + _IDS]), to, arrived)
        except OSError as error:
            # Anyone can name an address that cannot be sent to.
            _log.debug("no answer to %s: %s", text(to), error)

    def _safely_has(self, name: str) -> bool:
        try:
            return bool(self._has(name))
        except Exception:
            if not self._failed:
                self._failed = True
                _log.exception("error while looking for the PV %r; further ones are not told", name)
            return False
