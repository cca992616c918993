"""One fixture hands a test the twin to work on: `backend.codec.Codec`, `backend.framing.Framer` and so on."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import pkgutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How fast a loaded machine makes an example is no property of the library.
settings.register_profile("pvafast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pvafast")

TWINS = {"c": "pvafast._c", "py": "pvafast._py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=sorted(TWINS), help="run the twin tests on this twin only")


def compiled() -> bool:
    return importlib.util.find_spec("pvafast._c.codec") is not None


def load(twin: str) -> SimpleNamespace:
    """The modules of one twin, by their words."""
    words = [module.name for module in pkgutil.iter_modules(importlib.import_module("pvafast._py").__path__)]
    modules = {word: importlib.import_module(f"{TWINS[twin]}.{word}") for word in words}
    return SimpleNamespace(name=twin, **modules)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend")
        twins = [chosen] if chosen else sorted(TWINS)
        if not compiled() and not chosen and os.environ.get("PVAFAST_BACKEND") != "c":
            twins.remove("c")  # a fallback-only installation; CI forces the compiled twin
        metafunc.parametrize("backend", twins, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--backend py` the comparisons of the twins are left out: `--backend c` runs them."""
    if config.getoption("--backend") == "py":
        compare = [item for item in items if "twins" in getattr(item, "fixturenames", ())]
        if compare:
            config.hook.pytest_deselected(items=compare)
            items[:] = [item for item in items if item not in compare]


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> SimpleNamespace:
    return load(request.param)


@pytest.fixture
def twins() -> tuple[SimpleNamespace, SimpleNamespace]:
    """(compiled, Python): for tests that compare them."""
    if not compiled():
        pytest.skip("the compiled twin is not installed")
    return load("c"), load("py")


@pytest.fixture(autouse=True)
def no_lost_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error that a compiled function could not raise is printed: here it fails the test."""
    if request.config.getoption("parallel_threads", None) not in (None, 1):
        yield  # pytest-run-parallel: what is printed cannot be told apart
        return
    capfd: pytest.CaptureFixture[str] = request.getfixturevalue("capfd")
    yield
    out, err = capfd.readouterr()
    if "Exception ignored" in out + err:
        pytest.fail(f"an error was lost: {err}")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """run(argument...): (exit status, lines of standard output, lines of standard error)."""
    from pvafast.cli import main

    log = logging.getLogger("pvafast")
    before = log.handlers, log.level

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfd.readouterr()
        return status, out.splitlines(), err.splitlines()

    yield call
    log.handlers, level = before
    log.setLevel(level)


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No search but on 127.0.0.1; EPICS_PVA_BROADCAST_PORT is for the test to set."""
    for name in [name for name in os.environ if name.startswith("EPICS_PVA")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EPICS_PVA_ADDR_LIST", "127.0.0.1")
    monkeypatch.setenv("EPICS_PVA_INTF_ADDR_LIST", "127.0.0.1")
    monkeypatch.setenv("EPICS_PVA_AUTO_ADDR_LIST", "NO")
    return monkeypatch
