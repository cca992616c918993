"""Frames for two worker processes, without a copy: `python examples/shared_frames.py`.

The program takes frames (here it makes them; a client's monitor with `pool=` gives them) into a pool in shared memory, and sends
handles of some hundred bytes to the workers, which look at the memory itself. A buffer is used again when the program lets go of
its frame: here when a worker has answered.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np

from pvafast import Value
from pvafast.ndarray import Frame, FramePool, encode

SHAPE = (480, 640)


def work(handles: Any, results: Any) -> None:
    """A worker: handles in, answers out, until None comes."""
    for number, handle in iter(handles.get, None):
        image = handle.open()  # read-only, the very memory
        mean = float(image.mean())
        # Asked afterwards: whether all of it was still that frame.
        results.put((multiprocessing.current_process().name, number, mean, handle.current))


def frames(count: int) -> Iterator[Value]:
    """NTNDArrays, some of them compressed."""
    for number in range(count):
        image = np.full(SHAPE, number, np.uint16)
        image[::2] += 3
        yield encode(image, unique_id=number, codec="zlib" if number % 3 == 0 else "")


def main(count: int = 20) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    queues = [context.Queue(), context.Queue()]
    workers = [
        context.Process(target=work, args=(queue, results), name=f"worker {i}")
        for i, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    held: dict[int, Frame] = {}

    def answer() -> None:
        name, number, mean, current = results.get(timeout=60)
        del held[number]  # its buffer is free
        print(f"{name}: frame {number}, mean {mean}{'' if current else ', overwritten meanwhile'}")

    with FramePool(count=4, nbytes=SHAPE[0] * SHAPE[1] * 2, shared=True) as pool:
        for value in frames(count):
            while len(held) == pool.count:
                answer()
            frame = pool.frame(value)
            assert frame is not None  # there was a free buffer
            held[frame.unique_id] = frame
            queues[frame.unique_id % 2].put((frame.unique_id, pool.handle(frame)))
            del frame
        while held:
            answer()
        for queue in queues:
            queue.put(None)
        for worker in workers:
            worker.join()
        print(pool.statistics)


if __name__ == "__main__":
    main()
