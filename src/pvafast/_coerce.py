"""What a user passes -> what a leaf of a pvData type holds. Written once for both twins; says what does not fit, and never truncates.

Errors are EncodeError and RangeError with a path inside the leaf ("[3]", "name"); the caller puts the field's name in front.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from math import isinf
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ._types import (
    ANY,
    ANY_ARRAY,
    ARRAY_BITS,
    BOUNDED,
    BOUNDED_STRING,
    CODE_OF_DTYPE,
    DTYPES,
    FIXED,
    SCALAR_FORMS,
    SCALARS,
    STRING,
    STRUCTURE,
    STRUCTURE_ARRAY,
    UNION,
    UNION_ARRAY,
)
from .errors import EncodeError, RangeError

if TYPE_CHECKING:
    from ._py.introspection import FieldDesc
    from ._py.value import AnyValue, UnionValue, Value

_RANGES: Final = {
    code: (int(np.iinfo(dtype.str).min), int(np.iinfo(dtype.str).max))
    for code, dtype in DTYPES.items()
    if dtype.kind in "iu"
}
_FLOAT32: Final = Struct("<f")
_FLOAT, _DOUBLE, _BOOL, _INT64, _UINT64 = 0x42, 0x43, 0x00, 0x23, 0x27


def _found(obj: object) -> str:
    return type(obj).__name__


def boolean(obj: Any) -> bool:
    """bool, numpy.bool or an integer 0 or 1."""
    if isinstance(obj, bool | np.bool_):
        return bool(obj)
    try:
        number = operator.index(obj)
    except TypeError:
        raise EncodeError(f"bool expected, {_found(obj)} found") from None
    if number in (0, 1):
        return bool(number)
    raise RangeError(f"bool cannot hold {number}")


def integer(code: int, obj: Any) -> int:
    """An int within the range of the type."""
    try:
        number = int(obj) if isinstance(obj, np.bool_) else operator.index(obj)
    except TypeError:
        raise EncodeError(f"{SCALARS[code][0]} expected, {_found(obj)} found") from None
    low, high = _RANGES[code]
    if not low <= number <= high:
        raise RangeError(f"{SCALARS[code][0]} cannot hold {number}")
    return number


def floating(code: int, obj: Any) -> float:
    """A float; for the type "float" rounded to single precision."""
    if (
        isinstance(obj, str | bytes | bytearray | complex)
        or not hasattr(type(obj), "__float__")
        or (isinstance(obj, np.ndarray) and obj.ndim)
    ):
        try:
            obj = operator.index(obj)
        except TypeError:
            raise EncodeError(f"{SCALARS[code][0]} expected, {_found(obj)} found") from None
    try:
        number = float(obj)
        if isinf(number) and obj != number:  # a numpy.longdouble, a Decimal
            raise OverflowError
        return float(_FLOAT32.unpack(_FLOAT32.pack(number))[0]) if code == _FLOAT else number
    except OverflowError:
        raise RangeError(f"{SCALARS[code][0]} cannot hold {obj}") from None
    except (TypeError, ValueError):
        raise EncodeError(f"{SCALARS[code][0]} expected, {_found(obj)} found") from None


def string(bound: int | None, obj: Any) -> str:
    """A str; of at most `bound` bytes in UTF-8 where there is a bound."""
    if not isinstance(obj, str):
        raise EncodeError(f"string expected, {_found(obj)} found")
    if bound is not None:
        try:
            size = len(obj.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise EncodeError(f"lone surrogate in string at index {error.start}") from None
        if size > bound:
            raise EncodeError(f"string of {size} bytes over its bound of {bound}")
    return str.__str__(obj)


def scalar(code: int, obj: Any) -> Any:
    """A number, bool or str of a scalar code."""
    if code == _BOOL:
        return boolean(obj)
    if code in _RANGES:
        return integer(code, obj)
    return string(None, obj) if code == STRING else floating(code, obj)


def counted(form: int, bound: int, n: int, name: str) -> None:
    """Hold a bounded or fixed array to its length."""
    if form == BOUNDED and n > bound:
        raise EncodeError(f"array of {n} {name} over its bound of {bound}")
    if form == FIXED and n != bound:
        raise EncodeError(f"array of {n} {name} where {bound} are fixed")


def numbers(code: int, obj: Any) -> np.ndarray[Any, Any]:
    """A one-dimensional, C-contiguous, native array of exactly the dtype of a scalar code; uncopied where it is one."""
    name, dtype = SCALARS[code][0], DTYPES[code]
    if isinstance(obj, np.ndarray):
        array: np.ndarray[Any, Any] = obj
    elif isinstance(obj, bytes | bytearray):
        array = np.frombuffer(obj, np.uint8)
    elif isinstance(obj, str) or obj is None or isinstance(obj, Mapping | set | frozenset):
        raise EncodeError(f"array of {name} expected, {_found(obj)} found")
    else:
        listed = obj if hasattr(obj, "__array__") or isinstance(obj, memoryview) else _sequence(obj, name)
        try:
            array = np.asarray(listed)
        except (ValueError, TypeError, OverflowError):
            array = np.empty(0, object)
        if array.size == 0 and array.ndim == 1:
            array = array.astype(dtype) if isinstance(listed, list) and not listed else array
        if array.dtype.kind not in "?biuf" or (array.dtype.kind == "f" and code in _RANGES):
            if isinstance(listed, list):
                return _one_by_one(code, listed)
            raise EncodeError(f"array of {name} expected, {_found(obj)} of {array.dtype} found")
    if array.ndim != 1:
        raise EncodeError(f"array of {name} with one dimension expected, {array.ndim} found")
    return _cast(array, code, name, dtype)


def _sequence(obj: Any, name: str) -> Any:
    if isinstance(obj, list):
        return obj
    try:
        memory = memoryview(obj)
    except TypeError:
        pass
    else:
        return memory
    return _items(obj, name)


def _one_by_one(code: int, obj: list[Any]) -> np.ndarray[Any, Any]:
    made = np.empty(len(obj), DTYPES[code])
    for i, item in enumerate(obj):
        try:
            made[i] = scalar(code, item)
        except EncodeError as error:
            error.within(f"[{i}]")
            raise
    return made


def _cast(
    array: np.ndarray[Any, Any], code: int, name: str, dtype: np.dtype[np.generic]
) -> np.ndarray[Any, Any]:
    source = array.dtype
    if source != dtype:
        kind = source.kind
        if kind not in "biuf" or (kind == "f" and code not in (_FLOAT, _DOUBLE)):
            raise EncodeError(f"array of {name} expected, array of {source} found")
        if code == _BOOL or code in _RANGES:
            low, high = _RANGES.get(code, (0, 1))
            if array.size and kind != "b":
                for extreme in (int(array.min()), int(array.max())):
                    if not low <= extreme <= high:
                        at = array.tolist().index(extreme)
                        raise RangeError(f"{name} cannot hold {extreme}", f"[{at}]")
            array = array.astype(dtype)
        else:
            with np.errstate(over="ignore"):
                cast = array.astype(dtype)
            if code == _FLOAT or source.itemsize > 8:
                lost = np.flatnonzero(np.isinf(cast) & np.isfinite(array))
                if lost.size:
                    raise RangeError(f"{name} cannot hold {array[lost[0]]}", f"[{int(lost[0])}]")
            array = cast
    return np.ascontiguousarray(array, dtype)


def strings(obj: Any) -> list[str]:
    """A list of str."""
    if isinstance(obj, np.ndarray) and obj.dtype.kind in "UT":
        if obj.ndim != 1:
            raise EncodeError(f"array of string with one dimension expected, {obj.ndim} found")
        obj = obj.tolist()
    return [_within(i, string, None, item) for i, item in enumerate(_items(obj, "string"))]


def _items(obj: Any, name: str) -> list[Any]:
    if isinstance(obj, str | bytes | bytearray | Mapping) or not isinstance(obj, Iterable):
        raise EncodeError(f"array of {name} expected, {_found(obj)} found")
    try:
        return list(obj)
    except TypeError:  # an array without dimensions
        raise EncodeError(f"array of {name} expected, {_found(obj)} found") from None


def _within(i: int, convert: Any, *arguments: Any) -> Any:
    try:
        return convert(*arguments)
    except EncodeError as error:
        error.within(f"[{i}]")
        raise


class Coercion:
    """Coerces to the classes of one twin."""

    def __init__(
        self,
        desc: type[FieldDesc],
        value: type[Value],
        union_value: type[UnionValue],
        any_value: type[AnyValue],
    ) -> None:
        self.FieldDesc = desc
        self.Value = value
        self.UnionValue = union_value
        self.AnyValue = any_value

    def leaf(self, type: FieldDesc, obj: Any) -> Any:
        """What a node of this type holds, made of what a user passes."""
        code = type.code
        if code in SCALARS:
            return scalar(code, obj)
        if code in SCALAR_FORMS:
            element, form = code & ~ARRAY_BITS, code & ARRAY_BITS
            made = strings(obj) if element == STRING else numbers(element, obj)
            counted(form, type.bound, len(made), SCALARS[element][0])
            return made
        if code == BOUNDED_STRING:
            return string(type.bound, obj)
        if code == STRUCTURE:
            return self.structure(type, obj)
        if code == UNION:
            return self.union(type, obj)
        if code == ANY:
            return self.any(obj)
        if code == ANY_ARRAY:
            return [_within(i, self.any, item) for i, item in enumerate(_items(obj, "any"))]
        assert code in (STRUCTURE_ARRAY, UNION_ARRAY)
        name = "structure" if code == STRUCTURE_ARRAY else "union"
        return [
            None if item is None else _within(i, self.leaf, type.element, item)
            for i, item in enumerate(_items(obj, name))
        ]

    def structure(self, type: FieldDesc, obj: Any) -> Value:
        """A Value of exactly this type, or one made of a mapping."""
        if isinstance(obj, self.Value):
            if obj.type == type:
                return obj
            raise EncodeError(f"structure of another type found (id {obj.type.id!r}, {type.id!r} expected)")
        if isinstance(obj, Mapping):
            return self.Value(type, obj)
        raise EncodeError(f"structure expected, {_found(obj)} found")

    def union(self, type: FieldDesc, obj: Any) -> UnionValue | None:
        """A UnionValue; None is the null; a plain value where one member fits."""
        if obj is None:
            return None
        members = type.members
        if isinstance(obj, self.UnionValue):
            if obj.name not in members:
                raise EncodeError(f"union has no member {obj.name!r}")
            return self.UnionValue(obj.name, self.member(members, obj.name, obj.value))
        if isinstance(obj, Iterator):
            obj = list(obj)  # each member is tried
        exact = [name for name, member in members.items() if _is_exactly(member, obj)]
        fits = {}
        # Where one member is of the type of obj, the others (conversions of a whole frame, say) need not be tried.
        for name in (*exact, *(name for name in members if name not in exact)):
            try:
                fits[name] = self.leaf(members[name], obj)
            except EncodeError:
                continue
            if len(exact) == 1 and name == exact[0]:
                break
        names = list(fits)
        if len(names) > 1:
            names = [name for name in names if name in exact]
        if len(names) == 1:
            return self.UnionValue(names[0], fits[names[0]])
        if fits:
            raise EncodeError(
                f"{_found(obj)} fits several members of the union "
                f"({', '.join(name for name in members if name in fits)}): use UnionValue"
            )
        raise EncodeError(f"{_found(obj)} fits no member of the union ({', '.join(members)})")

    def member(self, members: Mapping[str, FieldDesc], name: str, obj: Any) -> Any:
        """The value of a union's member."""
        try:
            return self.leaf(members[name], obj)
        except EncodeError as error:
            error.within(name)
            raise

    def any(self, obj: Any) -> AnyValue | None:
        """An AnyValue; None is the null; of a plain value, its own type."""
        if obj is None or isinstance(obj, self.AnyValue):
            return obj
        type = self.infer(obj)
        if isinstance(obj, self.Value) and type.code != STRUCTURE:
            obj = obj[""]
        return self.AnyValue(type, obj)

    def infer(self, obj: Any) -> FieldDesc:
        """The pvData type that a plain Python value has."""
        of = self.FieldDesc.of
        if isinstance(obj, self.Value):
            return obj.type
        if isinstance(obj, np.generic | np.ndarray):
            code = CODE_OF_DTYPE.get(obj.dtype.newbyteorder("="))
            if code is not None:
                return of(SCALARS[code][0] + ("[]" if isinstance(obj, np.ndarray) else ""))
            if obj.dtype.kind in "UT":
                return of("string[]" if isinstance(obj, np.ndarray) else "string")
        elif isinstance(obj, bool):
            return of("bool")
        elif isinstance(obj, int):
            return of("int64" if obj <= _RANGES[_INT64][1] else "uint64")
        elif isinstance(obj, float):
            return of("double")
        elif isinstance(obj, str):
            return of("string")
        elif isinstance(obj, bytes | bytearray):
            return of("uint8[]")
        elif isinstance(obj, list | tuple):
            if obj and all(isinstance(item, str) for item in obj):
                return of("string[]")
            if obj and all(isinstance(item, bool | int | float | np.number | np.bool_) for item in obj):
                if all(isinstance(item, int | np.integer) for item in obj) and max(obj) > _RANGES[_INT64][1]:
                    return of("uint64[]")  # numpy would make floats of them
                code = CODE_OF_DTYPE.get(np.asarray(obj).dtype)
                if code is not None:
                    return of(SCALARS[code][0] + "[]")
        raise EncodeError(f"no pvData type is evident for {_found(obj)}: use AnyValue(type, value)")


def _is_exactly(type: FieldDesc, obj: Any) -> bool:
    """True if a plain value is of this type without a conversion."""
    code = type.code
    if isinstance(obj, np.ndarray | np.generic):
        is_array = isinstance(obj, np.ndarray)
        return type.dtype == obj.dtype and (code in SCALARS) != is_array
    if isinstance(obj, bool):
        return code == _BOOL
    if isinstance(obj, float):
        return code == _DOUBLE
    if isinstance(obj, bytes | bytearray):
        return code & ~ARRAY_BITS == 0x24
    if isinstance(obj, int):
        return code in _RANGES
    return False
