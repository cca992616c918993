"""`subject` is who does the work, `timed` prepares it, which asserts, and times it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .children import Child, clock
from .subjects import TWINS, Work, prepare


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """`pytest benchmarks` takes all bench_*.py, though the files of tests are named otherwise."""
    if file_path.match("bench_*.py") and not parent.session.isinitpath(file_path):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `subject` says by @subjects(...) who can do the work."""
    if "subject" in metafunc.fixturenames:
        [mark] = list(metafunc.definition.iter_markers("subjects"))
        remote = mark.kwargs.get("remote", ())
        metafunc.parametrize(
            "subject",
            [
                pytest.param((name, name in remote), id=name, marks=ON_CHILD if name in remote else ())
                for name in mark.args
            ],
            indirect=True,
            scope="session",
        )


ON_CHILD = pytest.mark.benchmark(timer=clock)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "subjects(*names, remote=()): who can do the work; in another process")


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Iterator[str | Child]:
    name, remote = request.param
    try:
        if remote:
            child = Child(name)
        else:
            importlib.import_module(f"pvafast._{name}.codec" if name in TWINS else name)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    if remote:
        yield child
        child.close()
    else:
        yield name


@pytest.fixture
def timed(subject: str | Child, benchmark: Any) -> Callable[..., None]:
    def run(make: Callable[..., Work | None], *args: object) -> None:
        where = make.__module__.rpartition(".")[2], make.__name__
        benchmark.group = " ".join([where[0][6:], where[1], *map(str, args)])
        if isinstance(subject, Child):
            per = subject.prepare(*where, args)
            if per is None:
                pytest.skip("it cannot do this")
            benchmark.pedantic(subject.once, rounds=20)
        else:
            work = prepare(subject, *where, args)
            if work is None:
                pytest.skip("it cannot do this")
            per = work.per
            benchmark(work.run)
        benchmark.extra_info["per"] = per

    return run
