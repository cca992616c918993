"""Frames of a PV into an HDF5 file: `python examples/frames_hdf5.py PV FILE.h5 COUNT`.

A frame is a chunk. What comes compressed is stored as it came: HDF5 itself decompresses it when it is read.
"""

import struct
import sys

import h5py
import numpy as np

import pvafast.sync
from pvafast.ndarray import Frame


def filter_of(codec: str) -> dict[str, object]:
    """The filter of HDF5 that reads what a codec of areaDetector makes; none for raw frames, and for jpeg."""
    if codec == "zlib":
        return {"compression": "gzip"}
    if codec in ("blosc", "lz4", "lz4hdf5", "bslz4"):
        import hdf5plugin  # whoever reads the file imports it, too

        filters = {"blosc": hdf5plugin.Blosc, "bslz4": hdf5plugin.Bitshuffle}
        return {"compression": filters.get(codec, hdf5plugin.LZ4)()}
    return {}


def chunk_of(frame: Frame) -> bytes:
    """The bytes of a compressed frame, behind the header that the filter wants."""
    packed: bytes = frame.raw["value"].value[: frame.compressed_nbytes].tobytes()
    if packed.startswith(struct.pack(">Q", frame.nbytes)):
        return packed  # it is there: lz4hdf5, and chunks that a detector passes on
    if frame.codec == "lz4":
        return struct.pack(">QII", frame.nbytes, frame.nbytes, len(packed)) + packed
    if frame.codec == "bslz4":
        size = frame.dtype.itemsize
        return struct.pack(">QI", frame.nbytes, 8192 // size // 8 * 8 * size) + packed
    return packed


def main(name: str, path: str, count: int) -> int:
    with pvafast.sync.Client() as client, h5py.File(path, "w") as file:
        first = client.get(name)
        shape, dtype, stored = first.shape, first.dtype, filter_of(first.codec)
        images = file.create_dataset(
            "images", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape), **stored
        )
        numbers = file.create_dataset("unique_id", (0,), "i8", maxshape=(None,))
        with client.monitor(name, queue_size=64) as readings:
            for n, reading in zip(range(count), readings):  # noqa: B905 (readings never end)
                frame = reading.value
                if (frame.shape, frame.dtype) != (shape, dtype):
                    raise SystemExit(f"{frame} after {first}")
                images.resize(n + 1, axis=0)
                if stored and frame.codec == first.codec:
                    images.id.write_direct_chunk((n, *(0 for _ in shape)), chunk_of(frame))
                else:
                    images[n] = frame.data
                numbers.resize(n + 1, axis=0)
                numbers[n] = frame.unique_id
        missing = int((np.diff(numbers[:]) - 1).sum())
        print(readings.losses)
        print(f"{len(numbers)} frames in {path}, {missing} missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
