"""Who searches for which name, who answers, and what servers tell of themselves: GUIDs, beacons."""

from __future__ import annotations

from typing import Final, final

from ... import messages
from ..records import Record
from .kept import Asker, Beacons, End, Latency, Search, host_of
from .room import CHARACTERS, Room

# A name that was answered once is lost when as many searches, over as long, bring no answer (more than one address is searched at once).
_LOST_ASKED: Final = 3
_LOST_NS: Final = 1_000_000_000
# Where servers of a host pass searches on to one another (WIRE 7.2).
_FORWARDED: Final = "224.0.0.128"


@final
class Searches:
    """Searches, answers and beacons of a summary, which has the servers and latencies.

    names: what is searched for. beacons: by address. restarts: (address, ns) of new GUIDs. guids: addresses, by GUID.
    """

    def __init__(
        self, room: Room, servers: dict[str, End], latencies: dict[tuple[str, str], Latency]
    ) -> None:
        self.names: dict[str, Search] = {}
        self.beacons: dict[str, Beacons] = {}
        self.restarts: list[tuple[str, int]] = []
        self.guids: dict[bytes, dict[str, None]] = {}
        self._servers = servers
        self._latencies = latencies
        self._room = room

    # -- what came

    def search(self, record: Record, message: messages.Search, now: int) -> None:
        if record.transport == "udp":
            client = _address(record, message)
        else:
            client = record.src
        forwarded = host_of(record.dst) == _FORWARDED and message.address != ""
        for _, name in message.channels:
            search = self._room.find(self.names, name[:CHARACTERS], Search)
            if search is None:
                continue
            asker = search.clients.get(client)
            if asker is None:
                asker = Asker()
                if not self._room.keep(search.clients, client, asker):
                    continue
            if forwarded:
                asker.forwarded += 1
                if asker.asked:
                    continue  # seen already
            else:
                asker.asked += 1
            asker.last = now
            if not asker.since:
                asker.since_ns = now
            asker.since += 1

    def answer(self, record: Record, message: messages.SearchResponse, now: int) -> None:
        address = _address(record, message)
        self._guid(message.guid, address, now)
        if not message.found:
            return
        for name in record.pv if isinstance(record.pv, tuple) else ():
            search = self.names.get(name[:CHARACTERS])
            if search is None:
                continue
            self._room.keep(search.answers, address, message.guid)
            asker = search.clients.get(record.dst)
            # It may be answered at another port than it asked to be.
            host = host_of(record.dst)
            askers = (
                [asker] if asker else [a for client, a in search.clients.items() if host_of(client) == host]
            )
            for asker in askers:
                if asker.since and now >= asker.last:
                    latency = self._room.find(self._latencies, (address, "SEARCH"), Latency)
                    if latency is not None:
                        latency.add((now - asker.last) / 1e9, name)
                asker.answered = True
                asker.since = 0

    def connected(self, name: str, host: str) -> None:
        """A host opened the channel of a name, whether or not the answer that told it where was seen."""
        search = self.names.get(name)
        if search is not None:
            self._room.keep(search.connected, host)

    def beacon(self, record: Record, message: messages.Beacon, now: int) -> None:
        address = _address(record, message)
        self._guid(message.guid, address, now)
        known = self.beacons.get(address)
        if known is None:
            if self._room.fits(self.beacons, address):
                self.beacons[address] = Beacons(message.guid, message.sequence, message.change_count, now)
            return
        if message.guid == known.guid:
            step = (message.sequence - known.sequence) & 0xFF
            if not step:
                return  # the same beacon, sent to several addresses
            if step < 0x80:
                known.missing += step - 1
            else:
                known.back += 1
            known.changes += message.change_count != known.change
        known.guid, known.sequence, known.change = message.guid, message.sequence, message.change_count
        known.count += 1
        known.last = now

    def _guid(self, guid: bytes, address: str, now: int) -> None:
        """A server tells its GUID: a new one at the same address is a new server."""
        known = self._room.find(self.guids, guid, dict[str, None])
        if known is None:
            return
        end = self._room.find(self._servers, address, End, address)
        if end is not None and end.guid != guid:
            if end.guid and address not in known and len(self.restarts) < self._room.MOST:
                self.restarts.append((address, now))
            end.guid = guid
        self._room.keep(known, address)

    # -- what it comes to

    def unanswered(self) -> list[tuple[str, int, list[str]]]:
        """(name, how often it was searched, by which hosts) of the names that were never answered, the most first.

        Of hosts that were not, where others were.
        """
        found = [(name, search.unanswered()) for name, search in self.names.items()]
        listed = [(name, sum(hosts.values()), list(hosts)) for name, hosts in found if hosts]
        return sorted(listed, key=lambda item: (-item[1], item[0]))

    def lost(self) -> list[tuple[str, int, list[str]]]:
        """The same of names that were answered at first and are searched for again without an answer."""
        found = []
        for name, search in self.names.items():
            hosts: dict[str, int] = {}
            for client, asker in search.clients.items():
                if asker.answered and asker.since >= _LOST_ASKED and asker.last - asker.since_ns >= _LOST_NS:
                    hosts[host_of(client)] = hosts.get(host_of(client), 0) + asker.since
            if hosts:
                found.append((name, sum(hosts.values()), list(hosts)))
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def answered_twice(self) -> list[tuple[str, list[str]]]:
        """(name, addresses) of the names that several servers claim. One of several addresses has one GUID."""
        return [
            (name, list(search.answers))
            for name, search in self.names.items()
            if len(search.answers) > 1 and len(set(search.answers.values())) > 1
        ]

    def duplicate_guids(self) -> list[tuple[str, list[str]]]:
        """(GUID, addresses) of GUIDs that were seen at several addresses: a copied one, or a server of several networks.

        A loopback address is no other one than that of the same port.
        """
        found = []
        for guid, known in self.guids.items():
            ports = {a.rpartition(":")[2] for a in known if not _is_loopback(a)}
            addresses = [a for a in known if not _is_loopback(a) or a.rpartition(":")[2] not in ports]
            if len(addresses) > 1:
                found.append((guid.hex(), addresses))
        return found


def _address(record: Record, message: messages.Search | messages.SearchResponse | messages.Beacon) -> str:
    """The address in a message, or the sender's host if there is none."""
    host = f"[{message.address}]" if ":" in message.address else message.address
    return f"{host or host_of(record.src)}:{message.port}"


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "[::1]"))
