"""`pvafast demo`: a camera server and its client, two processes on this computer; every pixel of every frame is compared."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from .. import _backend
from .._losstext import counted, si
from .._version import __version__
from ..errors import PvaError
from ..ndarray import Frame, NTNDArray
from ..network.config import ClientConfig, ServerConfig
from ..server import PV, Server
from ..sync import Client
from . import options, session
from .output import colourful

Value = _backend.value.Value

NAME: Final = "demo:camera"
# Bytes of a frame: both processes hold eight of them, and some on their way.
_LARGEST: Final = 64 << 20
# Images that the camera shows in turn: frame n is image n % _IMAGES.
_IMAGES: Final = 8
# Seconds between two states on a terminal, and elsewhere.
_DRAWN: Final = 0.2
_TOLD: Final = 1.0
# Seconds that the camera has to start, and that a frame may take.
_START: Final = 20.0
_LATE: Final = 5.0
# Seconds that the camera lives longer than it is wanted, should nobody end it.
_LIFE: Final = 30.0


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Start a camera (a server of an NTNDArray, in a process of its own, on 127.0.0.1 alone) and receive its frames, as fast "
        "as they come: shows frames and bytes a second, what was lost, and compares every pixel of every frame. Needs no EPICS "
        "configuration. Exit status 0: frames came, none was lost, none was damaged."
    )
    parser.add_argument(
        "--seconds", type=options.seconds, default=5.0, metavar="SEC", help="how long (default: 5)"
    )
    parser.add_argument(
        "--size", type=size, default=(512, 512), metavar="WxH", help="of a frame (default: 512x512)"
    )
    parser.add_argument(
        "--type", choices=("uint8", "uint16", "uint32", "float32"), default="uint16",
        help="of a pixel (default: uint16)",
    )  # fmt: skip
    parser.add_argument(
        "--fps", type=options.seconds, default=0.0, metavar="N",
        help="frames a second (default: as many as the client takes)",
    )  # fmt: skip
    parser.add_argument("--camera", action="store_true", help=argparse.SUPPRESS)  # be the other process
    options.add_noise(parser)


def size(text: str) -> tuple[int, int]:
    """Width and height."""
    width, by, height = text.lower().partition("x")
    if not by or not 0 < int(width) <= 1 << 15 or not 0 < int(height) <= 1 << 15:
        raise ValueError(text)
    return int(width), int(height)


def run(arguments: argparse.Namespace) -> int:
    """Show it; returns the exit status."""
    session.noise(arguments)
    width, height = arguments.size
    if width * height * np.dtype(arguments.type).itemsize > _LARGEST:
        session.complain("", f"a frame has at most {_LARGEST >> 20} MiB")
        return 2
    if arguments.camera:
        return camera(arguments)
    print(f"pvafast {__version__} ({_backend.BACKEND}): a camera and a client, two processes on 127.0.0.1")
    with started(arguments) as address:
        if not address:
            session.complain("", "the camera did not start")
            return 1
        print(f"look yourself: pvafast monitor --rate --server {address} {NAME}", flush=True)
        return receive(arguments, address)


@contextmanager
def started(arguments: argparse.Namespace) -> Iterator[str]:
    """The camera in a process of its own: its address, "" if it does not start."""
    width, height = arguments.size
    command = [sys.executable, "-m", "pvafast", "demo", "--camera", "--size", f"{width}x{height}"]
    command += ["--type", arguments.type, "--fps", str(arguments.fps), "--seconds", str(arguments.seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def images(shape: tuple[int, int], type: str) -> list[Any]:
    """What the camera shows: noise that both processes can make."""
    width, height = shape
    chance = np.random.default_rng(width * height)
    return [
        chance.integers(0, 255, (height, width), np.uint8, endpoint=True).astype(type) for _ in range(_IMAGES)
    ]


# -- the camera


def camera(arguments: argparse.Namespace) -> int:
    """Be the camera, until it is terminated."""
    try:
        asyncio.run(shoot(arguments))
    except TimeoutError:  # its parent is gone
        return 1
    return 0


async def shoot(arguments: argparse.Namespace) -> None:
    """Post frames, each when all clients have taken the one before."""
    nt = NTNDArray()
    shown = images(arguments.size, arguments.type)
    pixels = [nt.wrap(image)["value"] for image in shown]
    pv = PV(nt, nt.wrap(shown[0]))
    period = 1 / arguments.fps if arguments.fps else 0.0
    number = 0
    async with (
        asyncio.timeout(arguments.seconds + _LIFE),
        Server({NAME: pv}, config=ServerConfig.isolated()) as server,
    ):
        print(f"127.0.0.1:{server.port}", flush=True)
        due = time.monotonic()
        while True:
            while not pv.subscriptions:
                await asyncio.sleep(0.01)
            number += 1
            frame = Value(nt.type)
            frame["value"] = pixels[number % _IMAGES]
            frame["uniqueId"] = number
            pv.post(frame, stamp=True)
            await pv.drain()
            if period:
                due = max(due + period, time.monotonic())
                await asyncio.sleep(due - time.monotonic())


# -- its client


class Check:
    """What became of the frames."""

    def __init__(self, expected: list[Any]) -> None:
        # Compared in words of 8 bytes, which is faster, where a frame has only such.
        self._expected = [_words(image) for image in expected]
        self._last = 0
        self.frames = self.lost = self.damaged = self.nbytes = 0

    def frame(self, frame: Frame) -> None:
        """Look at the next frame."""
        number, data = frame.unique_id, frame.data
        self.frames += 1
        self.nbytes += data.nbytes
        if self._last:
            self.lost += max(number - self._last - 1, 0)
        expected = self._expected[number % _IMAGES]
        found = _words(data)
        right = found.dtype == expected.dtype and np.array_equal(found, expected)
        if not right or (self._last and number <= self._last):
            self.damaged += 1
        self._last = number

    def __str__(self) -> str:
        lost = f"{self.lost} lost" if self.lost else "none lost"
        return f"{lost}, {self.damaged} damaged" if self.damaged else f"{lost}, none damaged"


def _words(image: Any) -> Any:
    flat = image.reshape(-1)
    return flat.view(np.uint64) if image.nbytes % 8 == 0 and image.ctypes.data % 8 == 0 else flat


def receive(arguments: argparse.Namespace, address: str) -> int:
    """Receive frames, and say how it went."""
    check = Check(images(arguments.size, arguments.type))
    draws = colourful(sys.stdout)
    period = _DRAWN if draws else _TOLD
    client = Client(ClientConfig(auto_addr_list=False), server=address)
    with client, client.monitor(NAME) as frames:
        try:
            frames.next(timeout=_START)  # the first one is from before
            begin = tick = time.perf_counter()
            before = (0, 0)
            while (now := time.perf_counter()) < begin + arguments.seconds:
                reading = frames.next(timeout=_LATE)
                check.frame(reading.value)
                if now >= tick + period:
                    rate, data = (
                        (check.frames - before[0]) / (now - tick),
                        (check.nbytes - before[1]) / (now - tick),
                    )
                    text = f"{check.frames:9,} frames  {rate:8,.0f} a second  {si(data, 'B/s'):>10}  {check}"
                    print(f"\r{text}\x1b[K" if draws else text, end="" if draws else "\n", flush=True)
                    tick, before = now, (check.frames, check.nbytes)
        except KeyboardInterrupt:
            print()
            raise
        except (PvaError, TimeoutError, StopIteration) as error:
            print(end="\n" if draws else "", flush=True)
            session.complain(NAME, error if isinstance(error, PvaError) else "no frame came")
            return 1
    seconds = time.perf_counter() - begin
    width, height = arguments.size
    print("\r\x1b[K" if draws else "", end="")
    print(
        f"{counted(check.frames, 'frame')} of {width}×{height} {arguments.type} in {seconds:.1f} s: "
        f"{check.frames / seconds:,.0f} a second, {si(check.nbytes / seconds, 'B/s')}; {check}: every pixel was compared"
    )
    return 0 if check.frames and not check.lost and not check.damaged else 1
