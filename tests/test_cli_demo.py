"""The command line: demo."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from clitools import interrupt, started
from pvafast import ndarray
from pvafast.cli import demo
from pvafast.cli.demo import Check, images

# What would lead any other command astray.
ASTRAY = {
    "EPICS_PVA_ADDR_LIST": "203.0.113.1",
    "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    "EPICS_PVA_NAME_SERVERS": "203.0.113.1",
    "EPICS_PVA_SERVER_PORT": "1",
    "EPICS_PVA_BROADCAST_PORT": "1",
    "EPICS_PVAS_INTF_ADDR_LIST": "203.0.113.1",
    "EPICS_PVAS_SERVER_PORT": "1",
}


@pytest.mark.parametrize("type", ["uint16", "float32"])
def test_frames_come_and_are_checked(type: str) -> None:
    begin = time.monotonic()
    with started("demo", "--seconds", "1.5", "--size", "64x48", "--type", type, env=ASTRAY) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    first, second, *told, last = out.splitlines()
    assert re.fullmatch(
        r"pvafast \S+ \((c|py)\): a camera and a client, two processes on 127\.0\.0\.1", first
    )
    assert re.fullmatch(
        r"look yourself: pvafast monitor --rate --server 127\.0\.0\.1:\d+ demo:camera", second
    )
    assert told
    assert all(" a second " in line and line.endswith("none lost, none damaged") for line in told)
    found = re.fullmatch(
        rf"(\d+) frames of 64×48 {type} in (\S+) s: \S+ a second, .*B/s; none lost, none damaged: every pixel was compared",
        last,
    )
    assert found
    assert int(found[1]) > 10
    assert 1.4 <= float(found[2]) < time.monotonic() - begin


def test_so_many_frames_a_second(run: Any, loopback: pytest.MonkeyPatch) -> None:
    status, out, _ = run("demo", "--seconds", "1", "--size", "16x16", "--fps", "20")
    assert status == 0
    assert 10 <= int(out[-1].split()[0]) <= 22


def test_ctrl_c() -> None:
    with started("demo", "--size", "32x32", env=ASTRAY) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        status, _, err = interrupt(process)
    assert (status, err) == (130, "")


def test_a_camera_that_does_not_start(
    run: Any, loopback: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.sys, "executable", "true")
    status, out, err = run("demo", "--seconds", "0.1")
    assert status == 1
    assert len(out) == 1
    assert err == ["pvafast: the camera did not start"]


def test_a_camera_that_says_nothing(
    run: Any, loopback: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_LATE", 0.1)
    status, out, err = run("demo", "--seconds", "2", "--fps", "0.01", "--size", "8x8")
    assert status == 1
    assert len(out) == 2
    assert err == ["pvafast: demo:camera: no frame came"]


def test_wrong_sizes(run: Any, loopback: pytest.MonkeyPatch) -> None:
    for wrong in ("512", "0x5", "5x99999", "axb", "x"):
        assert run("demo", "--size", wrong)[0] == 2
    status, out, err = run("demo", "--size", "32768x32768")
    assert (status, out, err) == (2, [], ["pvafast: a frame has at most 64 MiB"])


# -- what is checked


def frames(*numbers: int, shown: list[Any]) -> list[ndarray.Frame]:
    return [ndarray.Frame(ndarray.NTNDArray().wrap(shown[n % len(shown)], unique_id=n)) for n in numbers]


@pytest.mark.parametrize("shape", [(16, 8), (3, 1)])  # in words of 8 bytes, or not
@pytest.mark.parametrize(
    ("numbers", "lost", "damaged"),
    [
        ((1, 2, 3), 0, 0),
        ((7, 8, 9, 10, 11, 12, 13, 14, 15, 16), 0, 0),
        ((1, 2, 5), 2, 0),
        ((1, 2, 2), 0, 1),
        ((1, 3, 2), 1, 1),
    ],
)
def test_numbers(shape: tuple[int, int], numbers: tuple[int, ...], lost: int, damaged: int) -> None:
    shown = images(shape, "uint16")
    check = Check(shown)
    for frame in frames(*numbers, shown=shown):
        check.frame(frame)
    assert (check.frames, check.lost, check.damaged) == (len(numbers), lost, damaged)
    assert check.nbytes == len(numbers) * shape[0] * shape[1] * 2


def test_every_pixel_counts() -> None:
    shown = images((16, 8), "uint8")
    assert shown[0].shape == (8, 16)
    assert len({image.tobytes() for image in shown}) == len(shown)
    for position in range(shown[0].size):
        check = Check(shown)
        wrong = [image.copy() for image in shown]
        wrong[3].flat[position] ^= 1
        (frame,) = frames(3, shown=wrong)
        check.frame(frame)
        assert check.damaged == 1
    check = Check(shown)
    (frame,) = frames(3, shown=[image.astype(np.uint16) for image in shown])
    check.frame(frame)
    assert check.damaged == 1
    assert str(check) == "none lost, 1 damaged"
