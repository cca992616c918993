"""Who is timed: the twins, and the codecs of others.

c         the compiled twin
py        the Python twin
spvirit   spvirit.codec, Rust: it decodes full values and types, to dicts; see spvirit_works.py
caproto   caproto.pva 0.8.1, Python: in a process and an environment of its own; see caproto_works.py, caproto_env.py
p4p, pvapy  in a process of their own; they decode in C++ inside of their clients: timed is what comes after, see p4p_works.py
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable
from itertools import repeat
from types import SimpleNamespace
from typing import Any, NamedTuple

TWINS = ("c", "py")
SUBJECTS = (*TWINS, "spvirit", "caproto", "p4p", "pvapy")


class Work(NamedTuple):
    """What is timed: made by a function that has asserted that the result is right."""

    run: Callable[[], object]
    per: int = 1  # how many messages, types, sizes... one run takes
    kept: Callable[[], object] | None = (
        None  # makes what a program keeps of one: for the memory that it takes
    )


def repeated(times: int, call: Callable[..., object], *args: object, **options: object) -> Work:
    """The same call several times a run, so that what a call of the run costs does not count."""
    if times == 1:
        return Work(lambda: call(*args, **options))
    if options:

        def run() -> None:
            for _ in repeat(None, times):
                call(*args, **options)
    else:

        def run() -> None:
            for _ in repeat(None, times):
                call(*args)

    return Work(run, times)


def twin(name: str) -> SimpleNamespace:
    """The modules of a twin, by their words. Raises ImportError."""
    words = [module.name for module in pkgutil.iter_modules(importlib.import_module("pvafast._py").__path__)]
    modules = {word: importlib.import_module(f"pvafast._{name}.{word}") for word in words}
    return SimpleNamespace(name=name, **modules)


def works(subject: str) -> bool:
    """Whether there are works of that subject."""
    return subject in TWINS or importlib.util.find_spec(f"benchmarks.{subject}_works") is not None


def prepare(subject: str, module: str, function: str, args: Iterable[Any]) -> Work | None:
    """Work `function` of benchmarks/`module`, asserted and ready; None where the subject cannot do it.

    Raises ImportError where the subject is not installed.
    """
    if subject in TWINS:
        maker = getattr(importlib.import_module(f"benchmarks.{module}"), function)
        return maker(twin(subject), *args)  # type: ignore[no-any-return]
    maker = getattr(importlib.import_module(f"benchmarks.{subject}_works"), function, None)
    return None if maker is None else maker(*args)
