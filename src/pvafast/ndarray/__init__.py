"""NTNDArray: frames of detectors and cameras as shaped numpy arrays.

::

    frame = ndarray.Frame(value)              # or normative.read(value)
    frame.data                                # (y, x) uint16: a view of the received bytes, or decompressed
    frame.unique_id, frame.timestamp, frame.attributes["Gain"]
    frame.to_rgb(), frame.to_mono()

    value = ndarray.encode(image, codec="bslz4", unique_id=7, attributes={"Gain": 2.5})

    pool = ndarray.FramePool(count=16, nbytes=2048 * 2048 * 2)
    frame = pool.frame(value)                 # the same, in memory that is used again; None: the pool is full

Compressed frames (jpeg, blosc, lz4, lz4hdf5, bslz4; zlib is faster with it) need ``pip install 'pvafast[codecs]'``.
"""

from typing import TYPE_CHECKING

from .._lazy import lazily
from .build import Dimension, NTNDArray, encode
from .codecs import DECODERS
from .colour import BayerPattern, ColorMode
from .frame import Attributes, Frame

if TYPE_CHECKING:
    from .pool import FramePool, PoolStatistics
    from .shared import FrameHandle
else:  # a pool may be in shared memory, which is part of multiprocessing
    __getattr__, __dir__ = lazily(
        __name__, {"FramePool": ".pool", "PoolStatistics": ".pool", "FrameHandle": ".shared"}
    )

CODECS = tuple(DECODERS)

__all__ = [
    "CODECS",
    "Attributes",
    "BayerPattern",
    "ColorMode",
    "Dimension",
    "Frame",
    "FrameHandle",
    "FramePool",
    "NTNDArray",
    "PoolStatistics",
    "encode",
]
