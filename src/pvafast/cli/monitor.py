"""`pvafast monitor`: updates of PVs as they come; or how many; or into a file."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .. import _backend
from .._losstext import counted, numbering, si
from .._valuejson import leaf_names
from .._valuetext import printable
from ..client.engine import Engine
from ..client.subscription import (
    Connected,
    Disconnected,
    Finished,
    Options,
    Reading,
    Subscription,
    TypeChanged,
)
from ..errors import OperationTimeout
from ..network.loop import SelectLoop
from . import options, session
from .output import Output, colourful
from .recording import Recording

Update = _backend.monitor.Update
Losses = _backend.losses.Losses

# Seconds between two states of the rates; lines of them that are drawn over on a terminal.
_PERIOD: Final = 1.0
_DRAWN: Final = 20


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Show updates of PVs as they come: first all fields, then those that change. Where updates were lost, it says so "
        "behind the name: `overrun`, the server dropped older values; `merged`, they came faster than they could be shown."
    )
    parser.add_argument("pvs", nargs="+", metavar="PV")
    options.add_request(parser)
    options.add_format(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--rate", action="store_true", help="show how many updates and bytes come a second, and what is lost"
    )
    how.add_argument(
        "--save", metavar="FILE.npz",
        help="write all updates into a file for numpy.load when it ends: 'PV/FIELD' is the column of a field, "
        "'PV/received' when they came (ns since 1970)",
    )  # fmt: skip
    parser.add_argument(
        "-n", dest="count", type=options.count, default=0, metavar="N", help="end after N updates"
    )
    parser.add_argument(
        "--seconds", type=options.seconds, default=0.0, metavar="SEC", help="end after so many seconds"
    )
    options.add_connection(parser, wait="tell of PVs that are not there after so many seconds")


def run(arguments: argparse.Namespace) -> int:
    """Follow PVs until all have ended, or it is enough; returns the exit status."""
    view: View
    if arguments.rate:
        view = Rates(arguments)
    elif arguments.save is None:
        view = Shown(arguments)
    else:
        try:
            view = Saved(arguments)
        except OSError as error:
            session.complain(arguments.save, error.strerror or error)
            return 2
    config = session.client_config(arguments)
    server = None if arguments.server is None else config.server(arguments.server).address
    # In this thread: where the output is slow, servers are read slowly.
    loop = SelectLoop()
    engine = Engine(loop, config, server=server)
    try:
        status = follow(arguments, engine, loop, view)
    finally:
        engine.close()
        loop.run_once(0)
        loop.close()
        closed = view.close()
    return status if closed else 1


class Followed(Subscription):
    """A subscription that puts itself into `ready` when there is something to take."""

    def __init__(self, channel: Any, request: str, options: Options, ready: deque[Followed]) -> None:
        self._ready = ready
        self._listed = False
        super().__init__(channel, request, options)
        self._wake = self._list

    def _list(self) -> None:
        if not self._listed:
            self._listed = True
            self._ready.append(self)

    def items(self) -> Iterator[Any]:
        """What has come; at last the error in which it ended, if there is one."""
        self._listed = False
        for _ in range(len(self._queue)):
            yield self._take()
        error, self._error = self._error, None
        if error is not None:
            yield error

    @property
    def ended(self) -> bool:
        """Nothing comes any more."""
        return self._ended and not self._queue and self._error is None

    def missing(self, wait: float) -> OperationTimeout:
        """Why it is not there after so many seconds."""
        channel = self._channel
        return OperationTimeout(
            self.name, "monitor", wait, channel.waits_for, channel.server_name, channel.reason
        )


class Counted(Followed):
    """One whose updates are counted, not kept."""

    def __init__(self, channel: Any, request: str, options: Options, ready: deque[Followed]) -> None:
        self.losses = Losses()
        self.nbytes = 0
        # Updates and bytes at the last tick.
        self.before = (0, 0)
        super().__init__(channel, request, options, ready)

    def update(self, update: Update) -> None:
        """An update has come."""
        self.received += 1
        if update.overrun:
            self.overruns += 1
        self.nbytes += update.frame.end - update.frame.start
        self.losses.add(update)
        if self._ack_at:
            self._acknowledge(1)

    def lost(self, reason: str, was_open: bool) -> None:
        """The channel is gone for now: the numbers of frames do not go on."""
        self.losses.gap()
        super().lost(reason, was_open)


def follow(arguments: argparse.Namespace, engine: Engine, loop: SelectLoop, view: View) -> int:
    """Follow PVs; returns the exit status."""
    ready: deque[Followed] = deque()
    followed = [
        view.kind(engine.channel(name), arguments.request, view.options, ready)
        for name in dict.fromkeys(arguments.pvs)
    ]
    failed = False
    begin = loop.time()
    tick = begin + _PERIOD
    end = begin + arguments.seconds if arguments.seconds else None
    late = begin + arguments.wait if arguments.wait else None
    while not all(one.ended for one in followed):
        now = loop.time()
        if end is not None and now >= end:
            break
        loop.run_once(0 if ready else max(min(t for t in (tick, end, late) if t is not None) - now, 0))
        while ready:
            one = ready.popleft()
            for item in one.items():
                if isinstance(item, Exception):
                    failed = True
                    session.complain(one.name, item)
                elif isinstance(item, Connected | Disconnected | TypeChanged | Finished):
                    happened(item, arguments.verbose)
                else:
                    view.item(one, item)
                    if arguments.count and view.count >= arguments.count:
                        return int(failed)
        now = loop.time()
        if now >= tick:
            view.tick(followed, _PERIOD + now - tick)
            tick = now + _PERIOD
            if arguments.count and view.count >= arguments.count:
                return int(failed)
        if late is not None and now >= late:
            late = None
            for one in followed:
                if one.type is None and not one.ended:
                    session.complain(one.name, one.missing(arguments.wait))
    return int(failed or any(one.type is None for one in followed))


def happened(event: Any, verbose: bool) -> None:
    """Tell of a connection that was made or lost."""
    if isinstance(event, Connected):
        session.complain(event.name, f"connected to {event.server}")
    elif isinstance(event, Disconnected):
        session.complain(event.name, f"disconnected: {event.reason}")
    elif isinstance(event, Finished) and verbose:
        session.complain(event.name, "the server has ended the subscription")


class View:
    """What is done with updates. kind: of the subscriptions. options: theirs. count: updates so far."""

    kind: type[Followed] = Followed

    def __init__(self, arguments: argparse.Namespace, columns: tuple[str, ...] | None = None) -> None:
        self.options = Options(events=True, nt=False, columns=columns)
        self.count = 0

    def item(self, one: Followed, item: Any) -> None:
        """Something has come."""

    def tick(self, followed: Sequence[Any], seconds: float) -> None:
        """So many seconds are over since the last time."""

    def close(self) -> bool:
        """That was all; whether it went well."""
        return True


class Shown(View):
    """Each is shown."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self._output = Output.of(arguments)

    def item(self, one: Followed, item: Reading) -> None:
        """Show an update."""
        self.count += 1
        value, overrun, dropped = item.raw, item.overrun, item.dropped
        if self._output.json:
            lost = leaf_names(value.type, overrun)
            self._output.value(one.name, value, "", item.received, overrun=lost, merged=dropped)
        else:
            notes = [f"overrun of {', '.join(leaf_names(value.type, overrun))}"] if overrun else []
            notes += [f"{counted(dropped, 'update')} merged"] if dropped else []
            self._output.value(one.name, value, ", ".join(notes))
        if not one.waiting:
            sys.stdout.flush()


class Rates(View):
    """They are counted."""

    kind = Counted

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self._output = Output(json=arguments.json)
        self._draws = colourful(sys.stdout)
        self._drawn = 0
        self._followed: Sequence[Counted] = ()

    def tick(self, followed: Sequence[Counted], seconds: float) -> None:
        """Show the rates since the last time."""
        self._followed = followed
        self.count = sum(one.received for one in followed)
        if self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}A")
        width = max(len(printable(one.name)) for one in followed)
        for one in followed:
            updates, nbytes = one.received - one.before[0], one.nbytes - one.before[1]
            one.before = (one.received, one.nbytes)
            if self._output.json:
                self._json(one, updates / seconds, nbytes / seconds)
                continue
            name = self._output.paint(printable(one.name).ljust(width), "pv")
            rates = f"{si(updates / seconds, 'Hz'):>9}  {si(nbytes / seconds, 'B/s'):>10}"
            end = "\x1b[K" if self._draws else ""
            self._output.line(f"{name}  {rates}  {counted(one.received, 'update')}  {self._lost(one)}{end}")
        self._drawn = len(followed) if self._draws and len(followed) <= _DRAWN else 0

    def _lost(self, one: Counted) -> str:
        if not one.connected:
            return self._output.paint("not connected", "note")
        said = [numbering(one.losses), counted(one.overruns, "overrun") if one.overruns else ""]
        return self._output.paint(", ".join(filter(None, said)), "note")

    def _json(self, one: Counted, rate: float, nbytes: float) -> None:
        losses = one.losses
        self._output.object(
            {
                "pv": one.name, "rate": round(rate, 3), "bytes_per_second": round(nbytes), "updates": one.received,
                "overruns": one.overruns, "missing": losses.missing, "duplicates": losses.duplicates, "late": losses.late,
                "connected": one.connected,
            }
        )  # fmt: skip
        sys.stdout.flush()

    def close(self) -> bool:
        """Sum up."""
        for one in self._followed if not self._output.json else ():
            self._output.heading(one.name)
            self._output.line(str(one.losses))
        return True


class Saved(View):
    """They are written into a file in the end."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments, columns=())
        self._recording = Recording(arguments.save)
        self._dropped: dict[Followed, int] = {}

    def item(self, one: Followed, item: Any) -> None:
        """Keep a batch."""
        self.count += len(item)
        self._dropped[one] = one.dropped
        self._recording.add(one.name, item)

    def close(self) -> bool:
        """Write the file."""
        try:
            self._recording.write()
        except OSError as error:
            session.complain(self._recording.path, error.strerror or error)
            return False
        for name, rows, overruns in self._recording.told():
            text = f"{counted(rows, 'update')} saved"
            session.complain(name, f"{text}, {overruns} with overruns" if overruns else text)
        for one, dropped in self._dropped.items():
            if dropped:
                session.complain(one.name, f"{counted(dropped, 'update')} came too fast, and are lost")
        return True
