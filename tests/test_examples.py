"""The example programs, which are the how-to pages of the documentation, do what they say."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import corpus
import pvafast.sync
from pvafast import PV, RemoteError, Server, ndarray, normative
from pvafast.capture import read
from pvafast.network import ServerConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = str(Path(pvafast.__file__).parents[1])


@contextmanager
def started(example: str, *arguments: object, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """An example in a process of its own. Its clients find the server of that port; its servers are found by nobody."""
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH")))), "PYTHONUNBUFFERED": "1",
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}" if port else "", "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    }  # fmt: skip
    if not port:
        environment |= {"EPICS_PVAS_SERVER_PORT": "0", "EPICS_PVAS_BROADCAST_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / example), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], status: int = 0) -> list[str]:
    """The lines of a program that ends by itself."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, ""), out + err
    return out.splitlines()


# Clients and servers need asyncio's SelectorEventLoop there; asyncio.run takes the other one.
under_asyncio = pytest.mark.skipif(sys.platform == "win32", reason="asyncio.run() takes the Proactor loop")


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


# --- docs/howto/gateway.md --------------------------------------------------------------------------------------------


@under_asyncio
def test_gateway() -> None:
    """Values, puts, calls and updates go through it."""
    value, frame, adder = PV.of(1.5, writable=True, units="mm"), PV.of(np.ones((4, 5), np.uint16)), PV.of(0.0)
    adder.on_rpc(lambda call: call.arguments["a"] + 1)
    calls = PV(rpc=lambda call: call.arguments["a"] + 2)
    pvs = {"x": value, "frame": frame, "add": adder, "calls": calls}
    with Server(pvs, config=ServerConfig.isolated()).running() as server:
        upstream = f"127.0.0.1:{server.port}"
        with started("gateway.py", upstream) as gateway:
            assert gateway.stdout is not None
            line = gateway.stdout.readline()
            found = re.fullmatch(rf"4 PVs of {upstream} on port (\d+)\n", line)
            assert found, line
            address = f"127.0.0.1:{found[1]}"
            assert value.channels == 0
            with pvafast.sync.Client(server=address) as client:
                assert sorted(client.list_pvs(address)) == ["add", "calls", "frame", "x"]
                assert client.get("x") == 1.5
                assert client.get("x").units == "mm"
                client.put("x", 2.5)
                assert value.value == 2.5
                assert client.get("frame").data.tolist() == [[1] * 5] * 4
                with pytest.raises(RemoteError, match="frame is read-only"):
                    client.put("frame", np.zeros((4, 5), np.uint16))
                assert client.rpc("add", a=4) == 5
                assert client.rpc("calls", a=4) == 6
                with client.monitor("x") as readings:
                    assert readings.next(timeout=10).value == 2.5
                    value.post(3.5)
                    assert readings.next(timeout=10).value == 3.5
                    with pvafast.sync.Client(server=address) as another:
                        assert another.get("x") == 3.5
                        assert value.subscriptions == 1
            # Nobody has it open any more: it is not followed. Later it is again, and what was missed is seen.
            until(lambda: value.subscriptions == 0)
            value.post(4.5)
            with pvafast.sync.Client(server=address) as client:
                assert client.get("x") == 4.5


@under_asyncio
def test_gateway_when_its_server_comes_back() -> None:
    """Clients are disconnected with the server, and go on with it, even where the type is another one."""
    with Server({"x": 1.5}, config=ServerConfig.isolated()).running() as server:
        port = server.port
        with started("gateway.py", f"127.0.0.1:{port}") as gateway:
            assert gateway.stdout is not None
            address = "127.0.0.1:" + gateway.stdout.readline().split()[-1]
            client = pvafast.sync.Client(server=address)
            readings = client.monitor("x", events=True)
            assert type(readings.next(timeout=10)).__name__ == "Connected"
            assert readings.next(timeout=10).value == 1.5
            server.loop.call_soon_threadsafe(server.stop)
            assert type(readings.next(timeout=10)).__name__ == "Disconnected"
            with Server({"x": "text"}, config=ServerConfig.isolated(server_port=port)).running() as again:
                assert again.port == port
                names = [type(readings.next(timeout=20)).__name__ for _ in range(2)]
                assert names == ["Connected", "TypeChanged"]
                assert readings.next(timeout=20).value == "text"
                client.close()


# --- docs/howto/server.md ---------------------------------------------------------------------------------------------


@under_asyncio
def test_ioc() -> None:
    """Limits, alarms, choices, and a call that takes its time."""
    with started("ioc.py") as ioc:
        assert ioc.stdout is not None
        line = ioc.stdout.readline()
        names = [f"furnace:{name}" for name in ("heater", "note", "setpoint", "settle", "temperature")]
        found = re.fullmatch(rf"{', '.join(names)} on port (\d+)\n", line)
        assert found, line
        with pvafast.sync.Client(server=f"127.0.0.1:{found[1]}", timeout=20) as client:
            t = client.get("furnace:temperature")
            assert (t, t.units, t.severity, t.display.precision) == (20.0, "C", 0, 1)
            for wrong in (100.5, float("nan")):
                with pytest.raises(RemoteError, match=f"{wrong:g} is outside of 10 to 100"):
                    client.put("furnace:setpoint", wrong)
            # Not even where a client says that it has other limits.
            client.put("furnace:setpoint", {"value": 97, "control.limitHigh": 1000})
            setpoint = client.get("furnace:setpoint")
            assert (setpoint, setpoint.control.limit_high) == (97, 100)
            with pytest.raises(RemoteError, match="7 is none of off, on"):
                client.put("furnace:heater", {"value.index": 7})
            client.put("furnace:note", "heating")
            assert client.get("furnace:note") == "heating"
            with client.monitor("furnace:temperature") as readings:
                client.put("furnace:heater", "on")
                seen = []
                for reading in readings:
                    x = reading.value
                    if (x.severity, x.message) not in seen:
                        seen.append((x.severity, x.message))
                    expected = (2, "HIHI") if x >= 95 else (1, "HIGH") if x >= 90 else (0, "")
                    assert (x.severity, x.message) == expected
                    if x.severity == 2:
                        break
            assert seen == [(0, ""), (1, "HIGH"), (2, "HIHI")]
            assert client.rpc("furnace:settle", within=0.5) >= 96.5


# --- docs/howto/frames.md ---------------------------------------------------------------------------------------------

SHAPE = (96, 128)


def image(number: int) -> np.ndarray:
    return np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE) + number


def camera(
    numbers: Iterable[int], codecs: Sequence[str], example: str, *arguments: object, status: int = 0
) -> list[str]:
    """What an example says that takes frames of these numbers, compressed in turn, from the PV `cam`."""
    values = [
        ndarray.encode(image(number), unique_id=number, codec=codecs[n % len(codecs)])
        for n, number in enumerate(numbers)
    ]
    cam = PV(values[0])
    with (
        Server({"cam": cam}, config=ServerConfig.isolated()).running() as server,
        started(example, "cam", *arguments, port=server.port) as process,
    ):
        until(lambda: cam.subscriptions or process.poll() is not None, 60)
        for value in values[1:]:
            assert cam.wait_drained(10)
            cam.post(value)
        return ended(process, status)


@pytest.mark.parametrize(
    ("codecs", "number"),
    [
        ([""], None),
        (["zlib"], 1),
        (["zlib", "", "lz4"], 1),
        (["", "zlib"], None),
        (["blosc"], 32001),
        (["lz4"], 32004),
        (["lz4hdf5"], 32004),
        (["bslz4"], 32008),
    ],
    ids=lambda x: "+".join(one or "raw" for one in x) if isinstance(x, list) else "",
)
def test_frames_into_hdf5(codecs: list[str], number: int | None, tmp_path: Path) -> None:
    """All pixels and numbers are in the file. Compressed frames are as they came, and the filter of that number reads them."""
    h5py = pytest.importorskip("h5py")
    if number is not None and number > 1:
        pytest.importorskip("hdf5plugin")
    path = tmp_path / "run.h5"
    lines = camera(range(100, 107), codecs, "frames_hdf5.py", path, 7)
    assert lines[-1] == f"7 frames in {path}, 0 missing"
    with h5py.File(path) as file:
        images = file["images"]
        assert (images.shape, images.dtype, images.chunks) == ((7, *SHAPE), np.uint16, (1, *SHAPE))
        filters = images.id.get_create_plist()
        assert [filters.get_filter(i)[0] for i in range(filters.get_nfilters())] == [number] * (
            number is not None
        )
        for n in range(7):
            assert np.array_equal(images[n], image(100 + n))
            if number is not None and codecs[n % len(codecs)] == codecs[0]:
                sent = ndarray.encode(image(100 + n), codec=codecs[0])["value"].value.tobytes()
                mask, chunk = images.id.read_direct_chunk((n, 0, 0))
                assert (mask, chunk[-len(sent) :]) == (0, sent)
                assert len(chunk) - len(sent) == {"lz4": 16, "bslz4": 12}.get(codecs[0], 0)
        assert file["unique_id"][:].tolist() == list(range(100, 107))


def test_frames_into_hdf5_that_are_missing(tmp_path: Path) -> None:
    """They are told, and the exit status is 1."""
    pytest.importorskip("h5py")
    lines = camera([1, 2, 5, 6], [""], "frames_hdf5.py", tmp_path / "run.h5", 4, status=1)
    assert "4 frames: 2 missing (33 %)" in lines
    assert lines[-1].endswith("4 frames in " + str(tmp_path / "run.h5") + ", 2 missing")


@pytest.mark.parametrize("count", [7, 16, 20])
def test_frames_into_zarr(count: int, tmp_path: Path) -> None:
    """All pixels and numbers are in the store, in shards of 16 frames."""
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "run.zarr"
    lines = camera(range(5, 5 + count), ["", "zlib"], "frames_zarr.py", path, count)
    assert lines[-1] == f"{count} frames in {path}, 0 missing"
    images = zarr.open_group(path, mode="r")["images"]
    assert (images.shape, images.chunks, images.shards) == ((count, *SHAPE), (1, *SHAPE), (16, *SHAPE))
    assert np.array_equal(images[:], np.stack([image(5 + n) for n in range(count)]))
    assert zarr.open_group(path, mode="r")["unique_id"][:].tolist() == list(range(5, 5 + count))
    assert len([file for file in (path / "images" / "c").rglob("*") if file.is_file()]) == -(-count // 16)


def test_frames_into_torch() -> None:
    pytest.importorskip("torch")
    lines = camera(range(1, 6), ["", "zlib"], "frames_torch.py", 5)
    assert lines == [f"5 frames, 0 dropped; mean {image(3).mean():.3f}, largest {image(3).max():.3f}"]


# --- docs/howto/connection.md -----------------------------------------------------------------------------------------


def test_monitor_under_trio() -> None:
    pytest.importorskip("trio")
    pv = PV.of(1.5)
    with Server({"x": pv}, config=ServerConfig.isolated()).running() as server:
        with started("trio_monitor.py", f"127.0.0.1:{server.port}", "x", 3) as process:
            until(lambda: pv.subscriptions or process.poll() is not None)
            for value in (2.5, 3.5):
                assert pv.wait_drained(10)
                pv.post(value, severity=1)
            first, *others = ended(process)
        assert first.startswith("1.5 value, alarm.severity, ")
        stamp = "timeStamp.secondsPastEpoch, timeStamp.nanoseconds"
        assert others == [f"{value} value, alarm.severity, {stamp}" for value in (2.5, 3.5)]
        with started("trio_monitor.py", f"127.0.0.1:{server.port}", "y", 3) as process:
            _, err = process.communicate(timeout=30)
            assert process.returncode == 1
            assert "no PV is named 'y'" in err


def test_gets_of_many_threads() -> None:
    pvs = {f"x{n}": PV.of(n + 0.5) for n in range(40)} | {"large": PV.of(np.arange(1e5))}
    with Server(pvs, config=ServerConfig.isolated()).running() as server:
        with started("threads_get.py", f"127.0.0.1:{server.port}", *pvs) as process:
            *lines, large = ended(process)
        assert lines == [f"x{n} {n + 0.5}" for n in range(40)]
        assert large.startswith("large [0.0000e+00 1.0000e+00 ")
        with started("threads_get.py", f"127.0.0.1:{server.port}", "x1", "y") as process:
            _, err = process.communicate(timeout=30)
            assert process.returncode == 1
            assert "no PV is named 'y'" in err


@pytest.mark.parametrize("name", ["trio_monitor", "threads_get"])
def test_connections_that_are_silent_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They send echoes, so that the server does not hang up on them: here after two seconds."""
    if name == "trio_monitor":
        pytest.importorskip("trio")
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module(name)
    monkeypatch.setattr(example, "ECHO", 0.25)
    pv = PV.of(1.5)
    config = ServerConfig.isolated(conn_tmo=0.5)
    with Server({"x": pv}, config=config).running() as server:
        assert config.tcp_timeout == 2
        address = f"127.0.0.1:{server.port}"
        timer = threading.Timer(3, pv.post, [2.5])
        timer.start()
        if name == "trio_monitor":
            sys.modules["trio"].run(example.main, address, "x", 2)
            assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["1.5", "2.5"]
        else:
            link = example.Link("127.0.0.1", server.port)
            sid = link.open("x")
            timer.join()
            assert link.get(sid)["value"] == 2.5
            link.close()
        timer.join()


# --- docs/howto/captures.md -------------------------------------------------------------------------------------------


@pytest.fixture
def trouble(tmp_path: Path) -> Callable[[str], Path]:
    """trouble(name): the capture of a recorded session, trouble.pcap in a directory of its own."""

    def path(name: str) -> Path:
        file = tmp_path / "trouble.pcap"
        file.write_bytes(corpus.sessions()[name].files["capture.pcap"])
        return file

    return path


def shell(page: str, cwd: Path, **names: str) -> dict[str, list[str]]:
    """The lines of output of the commands of a how-to page: all that use pvafast or an example, by their texts."""
    text = (EXAMPLES.parent / "docs" / "howto" / page).read_text()
    needs = {"jq ": shutil.which("jq"), "tiff": find_spec("tifffile")}
    found = {}
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            command = line
            for old, new in names.items():
                command = command.replace(old, new)
            missing = [word for word, there in needs.items() if word in command and not there]
            if missing or not command.startswith(("pvafast ", "python ")):
                continue
            command = command.replace("examples/", f"{EXAMPLES}/", 1)
            functions = 'pvafast() { "$PYTHON" -m pvafast "$@"; }; python() { "$PYTHON" "$@"; }; '
            done = subprocess.run(
                ["bash", "-c", f"set -eo pipefail; {functions}{command}"],
                capture_output=True,
                text=True,
                cwd=cwd,
                env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": SOURCE},
            )
            assert done.returncode == 0, (command, done.stderr)
            found[line] = done.stdout.splitlines()
    return found


def test_captures_in_the_shell_and_from_python(trouble: Callable[[str], Path], tmp_path: Path) -> None:
    """A client monitors a PV of p4p: value n at n seconds and n ns, with severity n % 3 and message "mn", n from 0 to 200."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    trouble("p4p_monitor_fast")
    told = shell("captures.md", tmp_path, **{"BL1:current": "mon:fast"})
    assert any(
        line.startswith("  mon:fast  NTScalar double      198")
        for line in told["pvafast decode --summary trouble.pcap"]
    )
    if shutil.which("jq") is not None:
        counted = [line.split() for command, lines in told.items() if "uniq" in command for line in lines]
        assert counted == [["1", "127.0.0.1:37834", "MONITOR", "mon:fast"], ["1", "mon:fast"]]
        with (tmp_path / "values.csv").open() as file:
            values = [(float(row[1]), int(row[2])) for row in csv.reader(file)]
    assert (tmp_path / "images" / "index.csv").exists()
    assert (tmp_path / "tiffs" / "index.csv").exists() == (find_spec("tifffile") is not None)

    report = told["python examples/capture_report.py trouble.pcap"]
    assert report[:2] == [
        "127.0.0.1 asks 1 times: SEARCH mon:fast",
        "127.0.0.1 asks 1 times: MONITOR mon:fast",
    ]
    assert report[2].startswith("mon:fast to 127.0.0.1:37834: 198 updates, ")
    with (tmp_path / "current.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers = [float(row["value"]) for row in rows]
    assert (len(rows), numbers[0], numbers[-1]) == (198, 0, 200)
    for n, row in zip(map(int, numbers), rows, strict=True):
        assert int(row["time"]) == 1_700_000_000 * 10**9 + n * (10**9 + 1)
        assert (row["alarm.severity"], row["alarm.message"]) == (str(n % 3), f"m{n}")
    if shutil.which("jq") is not None:
        assert values == [(n, n % 3) for n in numbers]
    with np.load(tmp_path / "current.npz") as arrays:
        assert arrays["value"].tolist() == numbers
        assert arrays["received"].tolist() == [int(row["received"]) for row in rows]


def test_captures_of_losses(trouble: Callable[[str], Path], tmp_path: Path) -> None:
    """A server of pvaPy merged updates, and says so itself."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    expected = [record for record in read(trouble("pvapy_monitor_fast")) if record.overrun]
    assert expected
    told = shell("captures.md", tmp_path, **{"BL1:current": "mon:fast"})
    assert told["python examples/capture_report.py trouble.pcap"][-1] == f"overruns: value ×{len(expected)}"
    for command, lines in told.items():
        if ".overrun" in command:
            assert [json.loads(line) for line in lines] == [
                [float(record.time), record.dst, "mon:fast", ["value"]] for record in expected
            ]


# --- docs/howto/columns.md --------------------------------------------------------------------------------------------


def test_columns_into_parquet(tmp_path: Path) -> None:
    """Every row, with its time; what did not come in an update is what it was."""
    polars, parquet = pytest.importorskip("polars"), pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("nanoarrow")
    count, start = 5000, 1_700_000_000
    pv = PV(normative.NTScalar("double"), 0.0, severity=1, timestamp=(start, 0))
    path = tmp_path / "x.parquet"
    with (
        Server({"x": pv}, config=ServerConfig.isolated()).running() as server,
        started("columns_parquet.py", "x", path, count, port=server.port) as process,
    ):
        until(lambda: pv.subscriptions or process.poll() is not None, 60)
        for n in range(1, count):
            if not n % 100:
                assert pv.wait_drained(10)
            pv.post(n / 2, timestamp=(start + n, n))
        (line,) = ended(process)
    assert line == f"{count} rows in {path}; 0 overruns at the server, 0 dropped here"
    frame = polars.read_parquet(path)
    assert frame.columns == ["time", "received", "value", "alarm.severity", "alarm.message"]
    assert frame["value"].to_list() == [n / 2 for n in range(count)]
    assert frame["time"].dt.timestamp("ns").to_list() == [
        start * 10**9 + n * (10**9 + 1) for n in range(count)
    ]
    assert set(frame["alarm.severity"]) == {1}
    assert parquet.read_schema(path).field("time").type.tz == "UTC"
