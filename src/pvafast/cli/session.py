"""What commands that talk to servers share: configuration, clients, complaints."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .._valuetext import printable
from ..errors import OperationTimeout
from ..network.config import ClientConfig, ServerConfig

if TYPE_CHECKING:
    from ..sync import Client


def noise(arguments: argparse.Namespace) -> None:
    """Log to standard error: warnings, or with -d everything."""
    handler = logging.StreamHandler()
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s" if arguments.debug else "pvafast: %(message)s"
    handler.setFormatter(logging.Formatter(text))
    log = logging.getLogger("pvafast")
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if arguments.debug else logging.WARNING)


def client_config(arguments: argparse.Namespace) -> ClientConfig:
    """The configuration that the environment gives; shown with -v."""
    noise(arguments)
    config = ClientConfig.from_env()
    if arguments.verbose:
        print("\n".join(settings(config)), file=sys.stderr)
    return config


def client(arguments: argparse.Namespace) -> Client:
    """The client that the arguments and the environment ask for."""
    from ..sync import Client  # a search needs none

    config = client_config(arguments)
    return Client(config, server=arguments.server, timeout=arguments.wait or None, nt=False)


def settings(config: ClientConfig | ServerConfig) -> list[str]:
    """A configuration as environment variables."""
    prefix = "EPICS_PVA_" if isinstance(config, ClientConfig) else "EPICS_PVAS_"
    return [f"{prefix}{one.name.upper()}={_setting(getattr(config, one.name))}" for one in fields(config)]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def complain(name: str, error: object) -> None:
    """Say on standard error, in one line, what went wrong with a PV."""
    text = str(error) or type(error).__name__
    if isinstance(error, OperationTimeout):
        text = text.removeprefix(f"{error.operation} of {error.name!r}: ")
    text = f"{name}: {text}" if name else text
    print(f"pvafast: {printable(' '.join(text.split()))}", file=sys.stderr)
