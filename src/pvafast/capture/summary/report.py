"""A Summary as text: problems first, then tables; what is empty is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..._losstext import duration as time
from ..._losstext import furthest, numbering, si
from ..._losstext import times as _times
from ..._valuetext import printable
from .kept import End, Latency, Pv, host_of

if TYPE_CHECKING:
    from .summary import Summary

# Lines of a section, and characters of a cell.
_LINES: Final = 20
_CELL: Final = 72
# Requests younger than that, in seconds, had no time to be answered.
_AT_ONCE: Final = 1e-3
_FRAMES: Final = (
    "PV|array|codec|>ratio|>frames|>rate|>data|>data rate|>missing|>duplicates|>late|>numbered anew"
)

_K = TypeVar("_K")
_V = TypeVar("_V")


def text(summary: Summary, width: int | None = None) -> str:
    """The report."""
    summary.settle()
    out = _head(summary)
    for heading, lines in problems(summary):
        out += ["", f"! {heading}", *_cut([f"  {printable(line)}" for line in lines])]
    for heading, heads, rows in (
        ("PVs", "name|type|>updates|>rate|>data|>data rate|asked", _pvs(summary)),
        ("frames", _FRAMES, _frames(summary)),
        ("servers", "address|>connections|>clients|>data|of itself|beacons|GUID", _servers(summary)),
        ("clients", "address|account|of itself|>data|servers|asks for", _clients(summary)),
        ("answers", "server|command|>count|>median|>99 %|>longest|slowest PV", _answers(summary)),
    ):
        if rows:
            out += ["", heading, *_table(heads.split("|"), rows)]
    if width is not None:
        out = [line if len(line) <= width else f"{line[: max(width - 1, 0)]}…" for line in out]
    return "\n".join(out)


def problems(summary: Summary) -> list[tuple[str, list[str]]]:
    """(heading, lines) of all that is wrong."""
    found = [(heading, list(lines(summary))) for heading, lines in _PROBLEMS]
    return [(heading, lines) for heading, lines in found if lines]


def _lost(summary: Summary) -> Iterator[str]:
    for (where, what, _), (times, n, why) in _largest(summary.lost, lambda tally: tally[1]):
        yield f"{where}: {n} byte{_s(n)} {what} in {times} place{_s(times)}: {why}"


def _unread(summary: Summary) -> Iterator[str]:
    for (where, command, why), n in _largest(summary.unread):
        yield f"{where}: {n} {command}: {why}"


def _statuses(summary: Summary) -> Iterator[str]:
    for (pv, command, kind, said), n in _largest(summary.statuses):
        yield f"{pv}: {command} {kind} {' '.join(said.split())!r}{_times(n)}"


def _unanswered(summary: Summary) -> Iterator[str]:
    for command, pv, client, server, n, seconds in summary.unanswered():
        waited = f"waited {time(seconds)}" if seconds >= _AT_ONCE else "where the capture ends"
        yield f"{command} {pv or server} by {client}{_times(n)}, {waited}"
    for pv, seconds in summary.silent():
        yield f"MONITOR {pv}: started, no update in {time(seconds)}"


def _unanswered_searches(summary: Summary) -> Iterator[str]:
    for name, n, hosts in summary.searches.unanswered():
        clients = summary.searches.names[name].clients
        answered = {host_of(address): None for address, asker in clients.items() if asker.answered}
        others = [host for host in answered if host not in hosts]
        yield f"{name}{_times(n)}, by {_list(hosts)}" + (f" (answered to {_list(others)})" if others else "")


def _lost_searches(summary: Summary) -> Iterator[str]:
    for name, n, hosts in summary.searches.lost():
        yield f"{name}{_times(n)}, by {_list(hosts)}"


def _answered_twice(summary: Summary) -> Iterator[str]:
    for name, servers in summary.searches.answered_twice():
        yield f"{name}: {_list(servers)}"


def _guids(summary: Summary) -> Iterator[str]:
    for guid, addresses in summary.searches.duplicate_guids():
        yield f"{guid}: {_list(addresses)}"


def _reconnects(summary: Summary) -> Iterator[str]:
    for client, server, connections, again, times in summary.reconnects():
        when = f", {_moments(summary, times)}" if times else ""
        yield f"{client} → {server}: connected again{_times(again)}, {connections} connections{when}"


def _closed(summary: Summary) -> Iterator[str]:
    closed, reopened = summary.closed, summary.reopened
    for (pv, server), _ in _largest({key: closed.get(key, 0) for key in (*closed, *reopened)}):
        words = [
            f"{what}{_times(table[pv, server])}"
            for what, table in (
                ("closed by the server", closed),
                ("opened again in the same connection", reopened),
            )
            if (pv, server) in table
        ]
        yield f"{pv} of {server}: {', '.join(words)}"


def _beacons(summary: Summary) -> Iterator[str]:
    restarts: dict[str, list[int]] = {}
    for address, ns in summary.searches.restarts:
        restarts.setdefault(address, []).append(ns)
    for address, times in restarts.items():
        yield f"{address}: a new GUID{_times(len(times))}, {_moments(summary, times)}: the server was restarted"
    for address, told in summary.searches.beacons.items():
        if told.missing:
            yield f"{address}: {told.missing} beacon{_s(told.missing)} missing beside {told.count}"
        if told.back:
            yield f"{address}: numbers of beacons went back{_times(told.back)}"
        if told.changes:
            yield f"{address}: its PVs changed{_times(told.changes)}"


def _overruns(summary: Summary) -> Iterator[str]:
    for name, counts in _largest(
        {pv.name: pv.overruns for pv in summary.pvs.values() if pv.overruns},
        lambda counts: max(counts.values()),
    ):
        fields = [f"{field or 'all'}{_times(n)}" for field, n in _largest(counts)]
        yield f"{name}: {_list(fields, 6)}"


def _lost_frames(summary: Summary) -> Iterator[str]:
    found = [
        (subscription, pv.name)
        for pv in summary.pvs.values()
        for subscription in pv.subscriptions
        if subscription.losses.missing or subscription.losses.duplicates or subscription.losses.late
    ]
    for subscription, name in sorted(found, key=lambda item: (-item[0].losses.missing, item[1])):
        yield f"{name} to {subscription.client}: {numbering(subscription.losses)}"


def _time_back(summary: Summary) -> Iterator[str]:
    found = [
        (subscription, pv.name)
        for pv in summary.pvs.values()
        for subscription in pv.subscriptions
        if subscription.losses.time_back
    ]
    for subscription, name in sorted(found, key=lambda item: (-item[0].losses.time_back, item[1])):
        losses = subscription.losses
        yield f"{name} to {subscription.client}{_times(losses.time_back)}, {furthest(losses)}"


def _one_sided(summary: Summary) -> Iterator[str]:
    for client, server in summary.one_sided():
        yield f"{client} → {server}"


_PROBLEMS: Final[Sequence[tuple[str, Callable[[Summary], Iterator[str]]]]] = (
    ("lost or damaged", _lost),
    ("not understood", _unread),
    ("errors and warnings", _statuses),
    ("never answered", _unanswered),
    ("searches never answered", _unanswered_searches),
    ("searches no longer answered", _lost_searches),
    ("names that several servers answer", _answered_twice),
    ("GUIDs at several addresses: copied, or of one server with several", _guids),
    ("reconnects", _reconnects),
    ("channels closed by servers or opened again", _closed),
    ("beacons", _beacons),
    ("overruns: older values lost by the server", _overruns),
    ("missing, doubled or late frames, by their uniqueId", _lost_frames),
    ("time stamps that went back", _time_back),
    ("only the client is heard", _one_sided),
)


def _head(summary: Summary) -> list[str]:
    if not summary.records:
        return ["no PVA messages"]
    counts = ", ".join(
        f"{len(table)} {name}{_s(len(table))}"
        for table, name in ((summary.pvs, "PV"), (summary.servers, "server"), (summary.clients, "client"))
    )
    out = [
        f"{summary.records} message{_s(summary.records)}, {size(summary.bytes)} "
        f"in {time((summary.last - summary.first) / 1e9)}{_since(summary.first)}; {counts}"
    ]
    if summary.dropped:
        out += ["", f"! incomplete: {summary.dropped} times there was no room for more"]
    return out


def _since(ns: int) -> str:
    try:
        return f" from {datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return ""  # a clock that shows no year of ours


def _moments(summary: Summary, times: Sequence[int]) -> str:
    return f"{_list([time((ns - summary.first) / 1e9) for ns in times])} after the start"


def _pvs(summary: Summary) -> list[list[str]]:
    shown = sorted(
        summary.pvs.values(), key=lambda pv: (-pv.bytes, -pv.pixels, -sum(pv.commands.values()), pv.name)
    )
    return [_pv(pv) for pv in shown]


def _pv(pv: Pv) -> list[str]:
    return [
        pv.name,
        pv.type,
        str(pv.updates) if pv.updates else "",
        si(pv.rate, "Hz") if pv.rate is not None else "",
        size(pv.bytes) if pv.updates else "",
        f"{size(pv.byte_rate)}/s" if pv.byte_rate is not None else "",
        ", ".join(f"{n} {command}" for command, n in pv.commands.items()),
    ]


def _frames(summary: Summary) -> list[list[str]]:
    shown = sorted(
        (pv for pv in summary.pvs.values() if pv.frames), key=lambda pv: (-pv.pixels, -pv.frames, pv.name)
    )
    return [_frame(pv) for pv in shown]


def _frame(pv: Pv) -> list[str]:
    lost = [subscription.losses for subscription in pv.subscriptions]
    rate = pv.frame_rate
    counts = [
        sum(getattr(one, count) for one in lost) for count in ("missing", "duplicates", "late", "restarts")
    ]
    return [
        pv.name,
        f"{pv.shape}{' (varies)' if pv.shapes > 1 else ''}",
        pv.codec,
        f"{pv.unpacked / pv.pixels:.3g}" if pv.codec and pv.pixels else "",
        str(pv.frames),
        si(rate, "Hz") if rate is not None else "",
        size(pv.pixels),
        f"{size(rate * pv.pixels / pv.frames)}/s" if rate is not None else "",
        *(str(count) if count else "" for count in counts),
    ]


def _servers(summary: Summary) -> list[list[str]]:
    shown = sorted(summary.servers.values(), key=lambda end: (-end.bytes, -end.connections, end.address))
    rows = []
    for end in shown:
        told = summary.searches.beacons.get(end.address)
        beacons = "" if told is None else str(told.count)
        if told is not None and told.count > 1:
            beacons += f", every {time((told.last - told.first) / (told.count - 1) / 1e9)}"
        rows.append([
            end.address, str(end.connections) if end.connections else "", str(len(end.peers)) if end.peers else "",
            size(end.bytes) if end.bytes else "", ", ".join(end.notes), beacons, end.guid.hex(),
        ])  # fmt: skip
    return rows


def _clients(summary: Summary) -> list[list[str]]:
    """Clients of the same host and account, such as a program that is started again and again, are one line."""
    groups: dict[tuple[str, str, str], list[End]] = {}
    for end in summary.clients.values():
        key = (host_of(end.address), ", ".join(end.accounts), ", ".join(end.notes))
        groups.setdefault(key, []).append(end)
    rows = []
    for (host, account, notes), ends in sorted(
        groups.items(), key=lambda item: (-sum(end.bytes for end in item[1]), item[0])
    ):
        address = ends[0].address if len(ends) == 1 else f"{host}, {len(ends)} ports"
        asked: dict[str, int] = {}
        for end in ends:
            for command, n in end.asked.items():
                asked[command] = asked.get(command, 0) + n
        names = {name: None for end in ends for name in end.names}
        what = ", ".join(f"{n} {command}" for command, n in asked.items())
        rows.append([
            address, account, notes, size(sum(end.bytes for end in ends)),
            _list(list({peer: None for end in ends for peer in end.peers})), f"{what} of {_list(list(names))}" if names else what,
        ])  # fmt: skip
    return rows


def _answers(summary: Summary) -> list[list[str]]:
    shown = sorted(summary.latencies.items(), key=lambda item: (-item[1].longest, item[0]))
    return [[server, command, *_latency(latency)] for (server, command), latency in shown]


def _latency(latency: Latency) -> list[str]:
    # The quantiles are not exact: two digits.
    parts = [min(float(f"{latency.quantile(part):.1e}"), latency.longest) for part in (0.5, 0.99)]
    return [str(latency.count), *map(time, parts), time(latency.longest), latency.slowest]


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def _list(items: Sequence[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _largest(table: dict[_K, _V], key: Callable[[_V], Any] = lambda n: n) -> list[tuple[_K, _V]]:
    """Entries, the largest first."""
    return sorted(table.items(), key=lambda item: (-key(item[1]), item[0]))


def size(n: float) -> str:
    """Bytes."""
    return si(n, "B")


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _LINES else [*lines[:_LINES], f"  ... and {len(lines) - _LINES} more"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, to the right where the heading begins with ">"; those with nothing in them are left out."""
    shown = [
        [_cell(cell, column == len(heads) - 1) for column, cell in enumerate(row)] for row in rows[:_LINES]
    ]
    used = [column for column in range(len(heads)) if any(row[column] for row in shown)]
    titles = [head.removeprefix(">") for head in heads]
    widths = [max(map(len, cells)) for cells in zip(titles, *shown, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return (
            "  "
            + "  ".join(_aligned(cells[column], widths[column], heads[column]) for column in used).rstrip()
        )

    more = [f"  ... and {len(rows) - _LINES} more"] if len(rows) > _LINES else []
    return [line(titles), *map(line, shown), *more]


def _aligned(cell: str, width: int, head: str) -> str:
    return cell.rjust(width) if head.startswith(">") else cell.ljust(width)


def _cell(text: str, last: bool) -> str:
    text = printable(text)
    return text if last or len(text) <= _CELL else f"{text[: _CELL - 1]}…"
