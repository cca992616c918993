"""`pvafast serve`: PVs that a TOML file describes, on the network."""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from .. import _backend
from .._valuejson import parse
from ..errors import PvaError
from ..network.addresses import text
from ..network.config import ServerConfig
from ..normative import Metadata, NTEnum, NTScalar
from ..normative.types import infer
from ..server import PV, Put, Refused, Server
from . import options, session

FieldDesc = _backend.introspection.FieldDesc

EXAMPLE: Final = """\
# PVs for `pvafast serve`. All keys but [pv.NAME] are optional.

prefix = "demo:"                  # of all names

[server]                          # as EPICS_PVAS_INTF_ADDR_LIST and so on; these come first
intf_addr_list = "127.0.0.1"

[pv.temperature]                  # demo:temperature
type = "double"                   # bool, int8 ... uint64, float, double, string; "double[]" and so on; else as the value is
value = 21.4
writable = true                   # else clients can only read it
description = "in the hutch"
units = "C"
precision = 1                     # digits to show
limits = [-20, 60]                # to show, and to hold puts to
warning = [15, 30]                # outside of it: severity MINOR
alarm = [5, 40]                   # outside of it: severity MAJOR

[pv.shutter]                      # choices make an enum
choices = ["closed", "open"]
value = "closed"
writable = true

[pv.spectrum]
type = "float[]"
value = [0.0, 1.5, 2.25, 1.0]

[pv."motor:name"]                 # names that are more than a word are quoted
value = "theta"
"""
_KEYS: Final = frozenset(
    {
        "type",
        "value",
        "writable",
        "description",
        "units",
        "precision",
        "limits",
        "warning",
        "alarm",
        "choices",
    }
)


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Serve the PVs that a TOML file describes, until it is interrupted."
    parser.add_argument("file", nargs="?", metavar="FILE.toml")
    parser.add_argument("--example", action="store_true", help="show an example of such a file, and exit")
    options.add_noise(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve; returns the exit status."""
    if arguments.example:
        print(EXAMPLE, end="")
        return 0
    if arguments.file is None:
        print("pvafast serve: name a file, or --example", file=sys.stderr)
        return 2
    session.noise(arguments)
    try:
        with open(arguments.file, "rb") as file:
            server = load(tomllib.load(file))
    except OSError as error:
        session.complain(arguments.file, error.strerror or error)
        return 2
    except (
        ValueError,
        TypeError,
        PvaError,
    ) as error:  # TOMLDecodeError, UnicodeDecodeError and EncodeError are ValueErrors
        session.complain(arguments.file, error)
        return 2
    return serve(server, arguments.verbose)


def serve(server: Server, verbose: bool) -> int:
    """Serve until it is interrupted."""
    if verbose:
        print("\n".join(session.settings(server.config)), file=sys.stderr)
    try:
        with server.running():
            where = ", ".join(text((address[0], address[1])) for address in server.addresses)
            print(f"serving {len(server.pvs)} PVs on {where}; Ctrl-C ends it", flush=True)
            if verbose:
                print("\n".join(server.names()), flush=True)
            while True:
                time.sleep(3600)
    except OSError as error:
        session.complain("", f"no server can be started: {error}")
        return 1


def load(found: Mapping[str, Any]) -> Server:
    """The server that a file describes. ValueError, TypeError or EncodeError that say what is wrong with it."""
    _only(found, {"prefix", "server", "pv"}, "the file")
    prefix = _of(str, found.get("prefix", ""), "prefix")
    settings = _of(dict, found.get("server", {}), "server")
    try:
        config = ServerConfig.from_env(**settings)
    except TypeError:
        _only(settings, set(ServerConfig.__dataclass_fields__), "[server]")
        raise
    made = {}
    for name, described in _of(dict, found.get("pv", {}), "pv").items():
        try:
            made[prefix + name] = pv(_of(dict, described, "it"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"pv.{name}: {error}") from None
    if not made:
        raise ValueError("no PVs in it: [pv.NAME]")
    return Server(made, config=config)


def _of(kind: type, x: Any, what: str) -> Any:
    if not isinstance(x, kind):
        raise ValueError(f"{what} must be a {'table' if kind is dict else 'string'}, not {x!r}")
    return x


def _only(found: Mapping[str, Any], keys: set[str] | frozenset[str], where: str) -> None:
    unknown = found.keys() - keys
    if unknown:
        raise ValueError(f"{min(unknown)!r} is no key of {where}: {', '.join(sorted(keys))}")


def pv(described: Mapping[str, Any]) -> PV:
    """The PV that a table describes."""
    _only(described, _KEYS, "a PV")
    writable = described.get("writable", False)
    if not isinstance(writable, bool):
        raise ValueError(f"writable must be true or false, not {writable!r}")
    if "choices" in described:
        return enum(described, writable)
    if "type" in described:
        fd = FieldDesc.of(described["type"])
    elif "value" in described:
        fd = infer(described["value"])
    else:
        raise ValueError("a type, a value or choices are needed")
    limits, warning, alarm = (interval(described, key, fd) for key in ("limits", "warning", "alarm"))
    shown = {name: described[name] for name in ("description", "units", "precision") if name in described}
    meta: Metadata = {}
    if limits is not None:
        meta["control"] = {"limitLow": limits[0], "limitHigh": limits[1]}
        shown |= meta["control"]
    if shown:
        meta["display"] = shown
    levels: dict[str, Any] = {}
    for severity, (name, bounds) in enumerate((("Warning", warning), ("Alarm", alarm)), 1):
        for side, bound in zip(("low", "high"), bounds or (), strict=False):
            levels |= {f"{side}{name}Limit": bound, f"{side}{name}Severity": severity}
    if levels:
        meta["value_alarm"] = {"active": True, **levels}
    nt = NTScalar(
        fd,
        display=bool(shown),
        form="precision" in shown,
        control=limits is not None,
        value_alarm=bool(levels),
    )
    guard = Guard(limits, warning, alarm)
    initial = {}
    if "value" in described:
        value = initial["value"] = nt.wrap(parse(fd, described["value"]))["value"]
        meta["severity"] = guard.severity(value)
    return PV(nt, initial, put=partial(checked, guard) if writable else None, **meta)


def enum(described: Mapping[str, Any], writable: bool) -> PV:
    """The PV of a table with choices."""
    _only(described, {"choices", "value", "description", "writable"}, "a PV with choices")
    choices = described["choices"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"choices must be a list of strings, not {choices!r}")
    nt = NTEnum(choices, display="description" in described)
    meta: Metadata = {}
    if "description" in described:
        meta["display"] = {"description": described["description"]}
    return PV(nt, described.get("value", 0), put=chosen if writable else None, **meta)


def interval(described: Mapping[str, Any], key: str, fd: FieldDesc) -> tuple[float, float] | None:
    """Two numbers, the lower one first."""
    bounds = described.get(key)
    if bounds is None:
        return None
    numbers = isinstance(bounds, list) and all(isinstance(bound, int | float) for bound in bounds)
    if not numbers or len(bounds) != 2 or not bounds[0] <= bounds[1]:
        raise ValueError(f"{key} must be [low, high], not {bounds!r}")
    if fd.dtype is None or fd.dtype.kind == "b":
        raise ValueError(f"{key} are for numbers, not for {fd.format('short')}")
    return bounds[0], bounds[1]


class Guard:
    """What a value may be, and from where on it is told as an alarm."""

    def __init__(
        self,
        limits: tuple[float, float] | None,
        warning: tuple[float, float] | None,
        alarm: tuple[float, float] | None,
    ) -> None:
        self.limits = limits
        self.levels = ((2, alarm), (1, warning))

    def check(self, value: Any) -> None:
        """Refuses a value that is outside of the limits; NaN is."""
        if self.limits is not None and not _within(value, self.limits):
            low, high = self.limits
            raise Refused(f"{value} is outside of the limits, {low:g} to {high:g}")

    def severity(self, value: Any) -> int:
        """Of the alarm: 0, 1 (MINOR) or 2 (MAJOR)."""
        return next((n for n, bounds in self.levels if bounds is not None and not _within(value, bounds)), 0)


def _within(value: Any, bounds: tuple[float, float]) -> bool:
    array = np.asarray(value)
    return bool(((bounds[0] <= array) & (array <= bounds[1])).all())


def checked(guard: Guard, put: Put) -> None:
    """Post what a client has put, with its severity, if it is allowed."""
    if any(name == "value" for name in put.raw.changed_names()):
        guard.check(put.value)
        put.post(severity=guard.severity(put.value))
    else:
        put.post()


def chosen(put: Put) -> None:
    """Post the choice that a client has made, if there is such a one."""
    choices = put.raw["value.choices"]
    index = put.raw["value.index"]
    if not 0 <= index < len(choices):
        raise Refused(f"{index} is none of {len(choices)} choices")
    put.post()
