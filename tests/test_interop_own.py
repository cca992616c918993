"""A pvafast server and pvafast's clients in two processes: what other clients and servers cannot do, too, in both byte orders."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pvafast
import pvafast.sync
from pvafast import FieldDesc, RemoteError

pytestmark = pytest.mark.interop

SERVER = """
import sys
import numpy as np
from pvafast import PV, AnyValue, FieldDesc, Server, UnionValue, Value, ndarray, normative
from pvafast.network.config import ServerConfig
count = PV(normative.NTScalar("int32"), 41)
@count.on_process
def process(process):
    count.post(count.value + 1)
halved = PV(normative.NTScalar("double"), 8.0)
@halved.on_put
async def put(put):
    halved.post(put.value / 2)
odd = FieldDesc.structure("odd_t", {
    "rows": FieldDesc.structure("row_t", {"a": "int32", "b": "string"}).array(),
    "union": FieldDesc.union("", {"number": "double", "text": "string"}),
    "any": "any",
})
pvs = {
    "count": count,
    "halved": halved,
    "readonly": PV.of(1.0),
    "array": PV(normative.NTScalar("int16[]"), np.arange(10, dtype=np.int16), writable=True),
    "frame": PV(ndarray.NTNDArray(), np.arange(600 * 400, dtype=np.uint16).reshape(600, 400), unique_id=7),
    "odd": PV(Value(odd, {
        "rows": [{"a": 1, "b": "x"}, {"a": -2, "b": "y"}],
        "union": UnionValue("text", "chosen"), "any": AnyValue("int32[]", [1, 2]),
    })),
}
server = Server(pvs, config=ServerConfig.isolated(), byteorder=sys.argv[1], segment_size=int(sys.argv[2]) or None)
with server.running():
    print(server.port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module", params=[("little", 0), ("big", 0), ("big", 5000)], ids=str)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    byteorder, segment_size = request.param
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, byteorder, str(segment_size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
        try:
            process.communicate("", timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.fixture
def client(address: str) -> Iterator[pvafast.sync.Client]:
    with pvafast.sync.Client(server=address) as client:
        yield client


def test_put_get(client: pvafast.sync.Client) -> None:
    assert client.put_get("halved", 5.0) == 2.5
    assert client.get("halved") == 2.5
    with pytest.raises(RemoteError, match="readonly is read-only"):
        client.put_get("readonly", 5.0)
    assert client.get("readonly") == 1.0


def test_process(client: pvafast.sync.Client) -> None:
    before = client.get("count")
    client.process("count")
    assert client.get("count") == before + 1
    with pytest.raises(RemoteError, match="halved cannot be processed"):
        client.process("halved")


def test_array(client: pvafast.sync.Client) -> None:
    client.put("array", np.arange(10))
    assert client.array_length("array") == 10
    assert client.array_get("array", 1, 4, 2).tolist() == [1, 3, 5, 7]
    client.array_put("array", [-1, -2], 3, 2)
    assert client.get("array").tolist() == [0, 1, 2, -1, 4, -2, 6, 7, 8, 9]
    client.array_set_length("array", 4)
    assert client.get("array").tolist() == [0, 1, 2, -1]


def test_values(client: pvafast.sync.Client) -> None:
    frame = client.get("frame")
    assert frame.unique_id == 7
    assert frame.data.dtype == np.uint16
    assert np.array_equal(frame.data, np.arange(600 * 400).astype(np.uint16).reshape(600, 400))
    odd: Any = client.get("odd", nt=False)
    assert [(row["a"], row["b"]) for row in odd["rows"]] == [(1, "x"), (-2, "y")]
    assert (odd["union"].name, odd["union"].value) == ("text", "chosen")
    assert odd["any"].value.tolist() == [1, 2]


def test_a_monitor_sees_what_another_client_does(client: pvafast.sync.Client, address: str) -> None:
    with client.monitor("count", "field(value)") as readings:
        first = readings.next(timeout=10).value

        def five_times() -> None:
            with pvafast.sync.Client(server=address) as other:
                for _ in range(5):
                    other.process("count")

        thread = threading.Thread(target=five_times)
        thread.start()
        last = first
        while last < first + 5:
            reading = readings.next(timeout=10)
            assert reading.changed_names() == ["value"]
            assert last < reading.value
            last = reading.value
        thread.join()
    assert last == first + 5
    assert client.get("count") == last


def test_info_and_list(client: pvafast.sync.Client, address: str) -> None:
    assert client.list_pvs(address) == ["array", "count", "frame", "halved", "odd", "readonly"]
    rows = FieldDesc.structure("row_t", {"a": "int32", "b": "string"}).array()
    assert client.info("odd", "rows") == rows
    assert client.server_info(address)["version"]
