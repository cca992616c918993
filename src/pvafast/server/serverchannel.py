"""The channel `server`, which every server has: what it serves, and what it is (WIRE 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from .._backend import value
from .._version import __version__
from ..normative import NTScalar
from .pv import PV
from .requests import Call, Refused

NAME: Final = "server"
_HELP: Final = """\
RPC with an NTURI whose query holds:
op=channels   the names of all PVs, sorted (providers that do not know theirs leave them out)
op=info       implLang and version
help          this text"""


def server_channel(names: Callable[[], Iterable[str]]) -> PV:
    """The PV behind it. names: gives the names each time anew."""

    def answer(call: Call) -> Any:
        arguments = call.arguments
        if "help" in arguments:
            return NTScalar("string").wrap(_HELP)
        op = arguments.get("op")
        if op == "channels":
            return NTScalar("string[]").wrap(sorted(names()))
        if op == "info":
            return value.Value(
                {"implLang": "string", "version": "string"},
                {"implLang": "Python", "version": f"pvafast {__version__}"},
            )
        raise Refused(
            f"no such op: {op!r}; there are channels, info, help"
            if op is not None
            else "op is missing: channels, info, help"
        )

    return PV(rpc=answer)
