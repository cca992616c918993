"""What may be shared between threads is; and an interpreter that cannot hold the compiled twin says so."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

DATA = Path(__file__).parent / "data" / "bench_messages"
THREADS = 8


def together(work: Callable[[int], Any], rounds: int = 30) -> None:
    """The same work in many threads at once, switching between them as often as can be; the first error is raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            for _ in range(rounds):
                work(number)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def updates(backend: SimpleNamespace) -> tuple[Any, bytes]:
    fd, _ = backend.codec.Codec().decode_type((DATA / "nts.init.msg").read_bytes()[14:])
    return fd, (DATA / "nts.full.msg").read_bytes()[13:]


def test_one_value_read_by_many(backend: SimpleNamespace) -> None:
    fd, raw = updates(backend)
    value, _ = backend.codec.Codec().decode_update(fd, raw)

    def work(number: int) -> None:
        assert value["value"] == 1.25
        assert value.alarm.message == "HIHI_ALARM"
        assert value["timeStamp"]["secondsPastEpoch"] == 1700000001
        assert value["display.units"] == ""  # never came: made when it is read
        assert value.changed_names()[0] == "value"
        assert value.copy() == value
        assert value.to_dict()["alarm"]["severity"] == 1
        assert backend.codec.Codec().encode_update(value) == raw[:-1]

    together(work)


def test_one_type_used_by_many(backend: SimpleNamespace) -> None:
    """A FieldDesc is compiled when it is first used: here by all at once."""
    for round in range(20):
        raw = (DATA / "nts.init.msg").read_bytes()[14:].replace(b"hysteresis", b"hyster%04d" % round)
        fd, _ = backend.codec.Codec().decode_type(raw)
        update = (DATA / "nts.full.msg").read_bytes()[13:]

        def work(number: int, fd: Any = fd, update: bytes = update) -> None:
            value, _ = backend.codec.Codec().decode_update(fd, update)
            assert value["value"] == 1.25
            assert fd.index("alarm.severity") == 3
            assert fd == backend.introspection.FieldDesc.parse(str(fd))

        together(work, 1)


def test_the_caches_of_types(backend: SimpleNamespace) -> None:
    """Every thread meets many types, the same ones, and each gets what its bytes say."""
    raw = (DATA / "nts.init.msg").read_bytes()[14:]
    many = [raw.replace(b"hysteresis", b"cached%04d" % i) for i in range(200)]

    def work(number: int) -> None:
        codec = backend.codec.Codec()
        for i in range(number, 200, 3):
            fd, end = codec.decode_type(many[i])
            assert end == len(raw)
            assert f"valueAlarm.cached{i:04}" in fd

    together(work, 5)


def test_bitsets(backend: SimpleNamespace) -> None:
    bits = backend.bitset.BitSet(range(0, 500, 3))
    raw = bits.encode(byteorder="big")

    def work(number: int) -> None:
        assert list(bits) == list(range(0, 500, 3))
        assert backend.bitset.BitSet.decode(raw, byteorder="big")[0] == bits
        assert len(bits | backend.bitset.BitSet([1])) == len(bits) + 1

    together(work)


def test_large_arrays_without_the_gil(backend: SimpleNamespace) -> None:
    """Byte orders are swapped, and frames encoded, while other threads do the same with the same memory."""
    fd = backend.introspection.FieldDesc.structure("", {"value": "int32[]"})
    wanted = np.arange(100_000, dtype=np.int32)
    value = backend.value.Value(fd, {"value": wanted})
    raw = backend.codec.Codec().encode(value, byteorder="big")

    def work(number: int) -> None:
        found, _ = backend.codec.Codec().decode(fd, raw, byteorder="big")
        assert np.array_equal(found["value"], wanted)
        assert backend.codec.Codec().encode(value, byteorder="big") == raw

    together(work, 5)


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import pvafast
code = '''
import sys, warnings
warnings.simplefilter("ignore")
sys.path[:0] = {path!r}
try:
    import pvafast
except ImportError as error:
    print("refused:", str(error).strip().splitlines()[-1])
else:
    value = pvafast.Value(pvafast.time_t, {{"nanoseconds": 5}})
    print("works:", pvafast.BACKEND, value["nanoseconds"])
'''.format(path=sys.path)
other = interpreters.create()
print("error:", interpreters.run_string(other, code))
interpreters.destroy(other)
print(pvafast.Value(pvafast.time_t, {"nanoseconds": 7})["nanoseconds"])
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="of CPython")
def test_subinterpreters() -> None:
    """numpy does not support them: from Python 3.12 on it refuses, and so do we. Nothing crashes."""
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETER], capture_output=True, text=True, timeout=120, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith(("refused:", "works:")), lines
    assert lines[1:] == ["error: None", "7"]
