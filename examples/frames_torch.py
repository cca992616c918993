"""Frames of a PV into torch, without a copy: `python examples/frames_torch.py PV COUNT` tells the mean of them."""

import sys

import torch

import pvafast.sync
from pvafast.ndarray import FramePool


def main(name: str, count: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with pvafast.sync.Client() as client:
        first = client.get(name)
        pool = FramePool(8, first.nbytes)
        mean, n = torch.zeros(first.shape, device=device), 0
        with client.monitor(name, pool=pool) as readings:
            for n, reading in zip(range(1, count + 1), readings):  # noqa: B905 (readings never end)
                frame = reading.value
                pixels = torch.from_dlpack(frame)
                assert (
                    pixels.data_ptr() == frame.data.ctypes.data
                )  # the very memory that it was received into
                mean += (pixels.to(device, torch.float32) - mean) / n
        print(f"{n} frames, {readings.dropped} dropped; mean {mean.mean():.3f}, largest {mean.max():.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
