"""Frames of a PV into a Zarr store: `python examples/frames_zarr.py PV STORE.zarr COUNT`.

A frame is a chunk, and BLOCK of them are a shard: a file. A shard is written at once, so frames are gathered before.
"""

import sys

import numpy as np
import zarr

import pvafast.sync

BLOCK = 16


def main(name: str, path: str, count: int) -> int:
    with pvafast.sync.Client() as client:
        first = client.get(name)
        shape, dtype = first.shape, first.dtype
        root = zarr.create_group(path)
        images = root.create_array(
            "images", shape=(count, *shape), chunks=(1, *shape), shards=(BLOCK, *shape), dtype=dtype
        )
        numbers = np.zeros(count, np.int64)
        block = np.empty((BLOCK, *shape), dtype)
        with client.monitor(name, queue_size=64) as readings:
            for n, reading in zip(range(count), readings):  # noqa: B905 (readings never end)
                at = n % BLOCK
                reading.value.decode(out=block[at])  # decompressed, or copied; ValueError if it does not fit
                numbers[n] = reading.value.unique_id
                if at == BLOCK - 1 or n == count - 1:
                    images[n - at : n + 1] = block[: at + 1]
        root.create_array("unique_id", data=numbers)
        missing = int((np.diff(numbers) - 1).sum())
        print(readings.losses)
        print(f"{count} frames in {path}, {missing} missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
