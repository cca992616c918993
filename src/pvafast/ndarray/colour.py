"""Colour modes of areaDetector: where the axes lie; to RGB and to mono."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from ..errors import FrameError

NDArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
YUVOrder = Literal["uyvy", "yuyv"]


class ColorMode(IntEnum):
    """NDColorMode_t, the attribute "ColorMode"; dimensions on the wire, fastest first."""

    MONO = 0  # [x, y]
    BAYER = 1  # [x, y]
    RGB1 = 2  # [3, x, y]
    RGB2 = 3  # [x, 3, y]
    RGB3 = 4  # [x, y, 3]
    YUV444 = 5  # 3 bytes a pixel
    YUV422 = 6  # 4 bytes two pixels
    YUV411 = 7  # 6 bytes four pixels


class BayerPattern(IntEnum):
    """NDBayerPattern_t, the attribute "BayerPattern": the colours of the first two lines."""

    RGGB = 0
    GBRG = 1
    GRBG = 2
    BGGR = 3


_RGB_AXES: Final = {ColorMode.RGB1: "yxc", ColorMode.RGB2: "ycx", ColorMode.RGB3: "cyx"}
# Columns of R, G and B within the pattern: (row, column) of the red and of the blue pixel; the others are green.
_RED_BLUE: Final = {
    BayerPattern.RGGB: ((0, 0), (1, 1)),
    BayerPattern.GBRG: ((1, 0), (0, 1)),
    BayerPattern.GRBG: ((0, 1), (1, 0)),
    BayerPattern.BGGR: ((1, 1), (0, 0)),
}
# Where Y lies in the bytes of a group, where U and V.
_YUV: Final[dict[tuple[ColorMode, str], tuple[int, tuple[int, ...], int, int]]] = {
    (ColorMode.YUV444, "uyvy"): (3, (1,), 0, 2),
    (ColorMode.YUV444, "yuyv"): (3, (0,), 1, 2),
    (ColorMode.YUV422, "uyvy"): (4, (1, 3), 0, 2),
    (ColorMode.YUV422, "yuyv"): (4, (0, 2), 1, 3),
    (ColorMode.YUV411, "uyvy"): (6, (1, 2, 4, 5), 0, 3),
    (ColorMode.YUV411, "yuyv"): (6, (0, 1, 3, 4), 2, 5),
}


def guess(shape: tuple[int, ...]) -> ColorMode | None:
    """The colour mode that an array of this shape seems to have: Mono of two axes, RGB of three where one has length 3."""
    if len(shape) == 2:
        return ColorMode.MONO
    if len(shape) == 3:
        for mode, axes in _RGB_AXES.items():
            if shape[axes.index("c")] == 3:
                return mode
    return None


def axes_of(mode: int, ndim: int) -> str:
    """The names of the axes of an array, slowest first: "yx", "yxc" (RGB1), "ycx" (RGB2), "cyx" (RGB3), "zyx"...

    YUV images are left as they are packed: "yb", b counting bytes, or what lies in a pixel, "yxb". "" for more than four axes.
    """
    if mode in _RGB_AXES and ndim == 3:
        return _RGB_AXES[ColorMode(mode)]
    if mode in (ColorMode.YUV444, ColorMode.YUV422, ColorMode.YUV411) and ndim in (2, 3):
        return "yb" if ndim == 2 else "yxb"
    return "tzyx"[4 - ndim :] if ndim <= 4 else ""


def to_rgb(data: NDArray, mode: int, pattern: int = BayerPattern.RGGB, yuv: YUVOrder = "uyvy") -> NDArray:
    """(y, x, 3), dtype as `data`; a view for Mono and RGB. Raises FrameError where shape or dtype do not suit the mode."""
    axes = axes_of(mode, data.ndim)
    if mode in _RGB_AXES:
        if data.ndim != 3 or data.shape[axes.index("c")] != 3:
            raise FrameError(f"{ColorMode(mode).name} with dimensions {data.shape[::-1]}")
        return data.transpose([axes.index(axis) for axis in "yxc"])
    if mode == ColorMode.MONO and data.ndim == 2:
        return np.broadcast_to(data[:, :, np.newaxis], (*data.shape, 3))
    if mode == ColorMode.BAYER and data.ndim == 2:
        return _demosaic(data, pattern)
    if axes.endswith("b"):
        y, u, v = _split_yuv(data, ColorMode(mode), yuv)
        rgb = np.empty((*y.shape, 3), np.uint8)
        # ITU-R BT.601, all 256 levels, as IIDC cameras send it.
        for channel, colour in enumerate((1.402 * v, -0.344136 * u - 0.714136 * v, 1.772 * u)):
            rgb[:, :, channel] = np.clip(np.rint(y + colour), 0, 255)
        return rgb
    raise FrameError(f"no image: colour mode {_name(mode)} with dimensions {data.shape[::-1]}")


def to_mono(
    data: NDArray,
    mode: int,
    pattern: int = BayerPattern.RGGB,
    yuv: YUVOrder = "uyvy",
    weights: tuple[float, float, float] | None = None,
) -> NDArray:
    """(y, x), dtype as `data`; the array itself for Mono, the Y of YUV.

    weights: of R, G and B; without them their mean, as areaDetector takes it. Fractions are cut off.
    """
    if mode == ColorMode.MONO and data.ndim == 2:
        return data
    if axes_of(mode, data.ndim).endswith("b") and weights is None:
        return _split_yuv(data, ColorMode(mode), yuv)[0].astype(np.uint8)
    rgb = to_rgb(data, mode, pattern, yuv)
    if weights is not None:
        return _cast(rgb @ np.asarray(weights, np.float64), data.dtype)
    if data.dtype.kind in "iub" and data.dtype.itemsize < 8:
        # Whole numbers stay exact, and as fast as they are.
        total = rgb.sum(axis=2, dtype=np.int64 if data.dtype.itemsize == 4 else np.int32)
        mean: NDArray = np.sign(total) * (np.abs(total) // 3)
        return mean.astype(data.dtype)
    return _cast(rgb.sum(axis=2, dtype=np.float64) / 3, data.dtype)


def _name(mode: int) -> str:
    return ColorMode(mode).name if mode in list(ColorMode) else str(mode)


def _cast(array: NDArray, dtype: np.dtype[Any]) -> NDArray:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # The largest float64 below the limit: 2**64 - 1 itself is none.
        high = float(limits.max) if dtype.itemsize < 8 else float(np.nextafter(float(limits.max), 0))
        array = np.clip(array, float(limits.min), high)
    return array.astype(dtype)


def _split_yuv(data: NDArray, mode: ColorMode, order: str) -> tuple[NDArray, NDArray, NDArray]:
    """Y, U and V of each pixel, float32; U and V around 0."""
    if data.dtype.itemsize != 1 or data.dtype.kind not in "iu":
        raise FrameError(f"{mode.name} of {data.dtype}: bytes expected")
    if (mode, order) not in _YUV:
        raise ValueError(f"the order of YUV is 'uyvy' or 'yuyv', not {order!r}")
    size, luma, u, v = _YUV[mode, order]
    rows = data.shape[0]
    width = data.size // rows if rows else 0
    if width % size:
        raise FrameError(f"{mode.name}: lines of {width} bytes are no multiple of {size}")
    groups = np.ascontiguousarray(data).view(np.uint8).reshape(rows, width // size, size)
    pixels = len(luma)
    y = groups[:, :, list(luma)].reshape(rows, -1).astype(np.float32)
    spread = [
        np.repeat(groups[:, :, at].astype(np.float32) - np.float32(128), pixels, axis=1) for at in (u, v)
    ]
    return y, spread[0], spread[1]


def _demosaic(data: NDArray, pattern: int) -> NDArray:
    """Bilinear: a missing colour is the mean of its nearest neighbours of that colour."""
    if pattern not in list(BayerPattern):
        raise FrameError(f"unknown Bayer pattern {pattern}")
    red, blue = _RED_BLUE[BayerPattern(pattern)]
    height, width = data.shape
    work = np.float32 if data.dtype.itemsize <= 2 else np.float64
    rgb = np.empty((height, width, 3), data.dtype)
    weight = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], work)
    for channel in range(3):
        mask = np.zeros((height + 2, width + 2), work)
        inside = mask[1:-1, 1:-1]
        if channel == 1:
            inside[:] = 1
        for place, value in ((red, channel == 0), (blue, channel == 2)):
            if channel == 1 or value:
                inside[place[0] :: 2, place[1] :: 2] = value
        known = np.zeros_like(mask)
        np.multiply(data, inside, out=known[1:-1, 1:-1], casting="unsafe")
        total, count = np.zeros((height, width), work), np.zeros((height, width), work)
        for dy in range(3):
            for dx in range(3):
                total += weight[dy, dx] * known[dy : dy + height, dx : dx + width]
                count += weight[dy, dx] * mask[dy : dy + height, dx : dx + width]
        filled = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        if data.dtype.kind in "iu":
            filled = np.rint(filled)
        rgb[:, :, channel] = np.where(inside > 0, data, _cast(filled, data.dtype))
    return rgb
