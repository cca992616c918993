"""What both faces of the client share: settings, and requests made of the arguments of their methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, final

from .. import _backend, messages, normative
from ..errors import EncodeError
from ..limits import Limits
from ..network.config import ClientConfig
from ..network.loop import Loop
from ..request import Request
from .channel import CLOSED, IDLE, SEARCHING
from .engine import Engine, prepared
from .lookup import Census, Lookup, ServerInfo
from .operations import Array, Connect, Get, Info, Process, Put, PutGet, Rpc
from .subscription import Options, shown

FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value
AnyValue = _backend.value.AnyValue


class Default(Enum):
    """That an argument was not given."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
Timeout = float | None | Default


@final
@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """What a channel is doing.

    state: "searching", "connecting", "opening", "open". server: its address, "" while it is searched for. reason: what went wrong
    last, "" if nothing did. subscriptions: how many there are.
    """

    name: str
    state: str
    server: str
    reason: str
    subscriptions: int


class BaseClient:
    """Settings and requests; the faces wait for them."""

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        server: str | None = None,
        timeout: float | None = 5.0,
        nt: bool = True,
        limits: Limits | None = None,
        user: str | None = None,
        host: str | None = None,
        rcvbuf: int | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise TypeError(f"config and {min(settings)}: give one of them")
        self.config = ClientConfig.from_env(**settings) if config is None else config
        self.timeout = timeout
        self._nt = nt
        self._server = None if server is None else self.config.server(server).address
        self._made: dict[str, Any] = {"limits": limits, "user": user, "host": host, "rcvbuf": rcvbuf}
        self._engine: Engine | None = None

    def _new_engine(self, loop: Loop) -> Engine:
        return Engine(loop, self.config, server=self._server, **self._made)

    def _started(self) -> Engine:
        """The engine, made at first use."""
        raise NotImplementedError

    def channels(self) -> list[ChannelStatus]:
        """The channels that are open, or wanted, and what they are doing."""
        engine = self._engine
        return [
            ChannelStatus(
                channel.name,
                SEARCHING if channel.state == IDLE else channel.state,
                channel.server_name,
                channel.reason,
                len(channel.subscriptions),
            )
            for channel in ([] if engine is None else engine.channels.values())
            if channel.state != CLOSED
        ]

    # -- requests

    def _time(self, timeout: Timeout) -> float | None:
        return self.timeout if isinstance(timeout, Default) else timeout

    def _shown(self, value: Any, nt: bool | None) -> Any:
        """A result as the program wants it."""
        if self._nt if nt is None else nt:
            if isinstance(value, Value):
                return shown(value)
            if isinstance(value, AnyValue):
                return value.value
        return value

    def _get(self, name: str, request: Any) -> Get:
        return Get(self._started().channel(name), *prepared(request))

    def _put(
        self,
        name: str,
        value: Any,
        request: Any,
        wait: bool | None,
        process: bool | str | None,
        get: bool | None,
    ) -> Put:
        options: dict[str, str] = {}
        if wait is not None:
            options["block"] = "true" if wait else "false"
        if process is not None:
            if process not in (True, False, "passive"):
                raise ValueError(f"process must be True, False or 'passive', not {process!r}")
            options["process"] = process if isinstance(process, str) else "true" if process else "false"
        if options:
            request = Request.of(request).with_options(options)
        return Put(self._started().channel(name), *prepared(request), value, get)

    def _put_get(self, name: str, value: Any, request: Any) -> PutGet:
        return PutGet(self._started().channel(name), *prepared(request), value)

    def _rpc(self, name: str, argument: Any, request: Any, query: Mapping[str, Any]) -> Rpc:
        if isinstance(argument, Mapping) and not isinstance(argument, Value):
            argument, query = None, {**argument, **query}
        if query:
            if argument is not None:
                raise TypeError("an argument and a query: give one of them")
            argument = normative.NTURI.of(name, query)
        if argument is not None and not isinstance(argument, Value | AnyValue):
            raise TypeError(f"an RPC takes a Value, AnyValue or None, not {type(argument).__name__}")
        return Rpc(self._started().channel(name), *prepared(request), argument)

    def _process(self, name: str, request: Any) -> Process:
        return Process(self._started().channel(name), *prepared(request))

    def _info(self, name: str, field: str) -> Info:
        return Info(self._started().channel(name), field)

    def _connect(self, name: str) -> Connect:
        return Connect(self._started().channel(name))

    def _array(
        self, name: str, request: Any, label: str, kind: Any, values: Any = None, **fields: int
    ) -> Array:
        return Array(self._started().channel(name), *prepared(request), label, kind, fields, values)

    def _array_get(self, name: str, offset: int, count: int, stride: int, request: Any) -> Array:
        kind = messages.ArrayGet
        return self._array(name, request, "array_get", kind, offset=offset, count=count, stride=stride)

    def _array_put(self, name: str, values: Any, offset: int, stride: int, request: Any) -> Array:
        kind = messages.ArrayPut
        return self._array(name, request, "array_put", kind, values, offset=offset, stride=stride)

    def _array_length(self, name: str, request: Any) -> Array:
        return self._array(name, request, "array_length", messages.ArrayGetLength)

    def _array_set_length(self, name: str, length: int, request: Any) -> Array:
        return self._array(name, request, "array_set_length", messages.ArraySetLength, length=length)

    def _search(self, name: str) -> Lookup:
        return Lookup(self._started(), name)

    def _census(self, seconds: float) -> Census:
        return Census(self._started(), seconds)

    def _server_rpc(self, server: Any, op: str) -> Rpc:
        """A call of the channel that every server has (WIRE 12)."""
        address = self.config.server(server).address if isinstance(server, str) else tuple(server)
        argument = normative.NTURI.of("server", {"op": op})
        return Rpc(self._started().channel("server", address), *prepared(""), argument)

    def _options(self, nt: bool | None, columns: Iterable[str] | None, **options: Any) -> Options:
        if isinstance(columns, str):
            raise TypeError(f"columns are a list of names, not {columns!r}")
        return Options(
            nt=self._nt if nt is None else nt, columns=None if columns is None else tuple(columns), **options
        )


def pairs(names: Iterable[str], values: Any) -> list[tuple[str, Any]]:
    """Names with the values to put."""
    names = list(names)
    values = list(values)
    if len(names) != len(values):
        raise EncodeError(f"{len(values)} values for {len(names)} names")
    return list(zip(names, values, strict=True))


__all__ = ["DEFAULT", "BaseClient", "ChannelStatus", "ServerInfo", "Timeout", "names_of", "pairs"]


def names_of(value: Any) -> list[str]:
    """The names in an answer of the channel `server`."""
    found = value["value"] if isinstance(value, Value) and "value" in value.type else None
    return list(found) if isinstance(found, list) else []
