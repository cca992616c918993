"""Memory for large arrays: placed where it suits (numpy, SIMD and accelerators like 64 bytes), and known again as the library's own."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np

NDArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Bytes. A cache line; what JAX and Arrow want.
ALIGNMENT: Final = 64


class Memory(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes that the library received or decompressed into, and nobody gave it: arrays over them may be written."""

    __slots__ = ()


class Lease:
    """Bytes that are given back when the last array, memoryview or capsule over them is gone: they all hold the lease."""

    __slots__ = ("__array_interface__", "_give_back", "_number")

    def __init__(self, start: int, nbytes: int, give_back: Callable[[int], None], number: int) -> None:
        """give_back(number) is called once, from whatever thread; it must keep the memory in place."""
        self.__array_interface__ = {
            "data": (start, False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        self._number = number
        self._give_back = give_back

    def __del__(self) -> None:
        self._give_back(self._number)


def allocate(nbytes: int) -> Memory:
    """So many bytes: reserved, not touched."""
    return Memory(nbytes, np.uint8)


def address(array: NDArray) -> int:
    """Of the first element."""
    found: int = array.__array_interface__["data"][0]
    return found


def extent(array: NDArray) -> tuple[int, int]:
    """Where its elements begin and end; twice the same of an empty one."""
    low = high = address(array)
    if array.size:
        for size, stride in zip(array.shape, array.strides, strict=True):
            if stride < 0:
                low += (size - 1) * stride
            else:
                high += (size - 1) * stride
        high += array.itemsize
    return low, high


def is_aligned(array: NDArray) -> bool:
    """Whether the array begins at a multiple of ALIGNMENT."""
    return address(array) % ALIGNMENT == 0


def align(memory: NDArray, at: int = 0) -> int:
    """The first index of `memory`, bytes, from which on byte `at` of something lies at a multiple of ALIGNMENT: 0 to ALIGNMENT - 1."""
    return -(address(memory) + at) % ALIGNMENT


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray:
    """An array over memory of its own that begins at a multiple of ALIGNMENT; not initialized."""
    dtype = np.dtype(dtype)
    memory = allocate(prod(shape) * dtype.itemsize + ALIGNMENT - 1)
    return np.ndarray(shape, dtype, memory, align(memory))


def writable(array: NDArray) -> NDArray | None:
    """A writable array of the same elements; None where they do not lie in Memory or a Lease."""
    owner: Any = array
    while not isinstance(owner, Memory | Lease):
        if isinstance(owner, np.ndarray):
            owner = owner.base
        elif isinstance(owner, memoryview):
            owner = owner.obj
        else:
            return None
    memory = np.asarray(owner)
    return np.ndarray(array.shape, array.dtype, memory, address(array) - address(memory), array.strides)
