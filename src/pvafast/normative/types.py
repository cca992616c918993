"""Builders: the types of the normative types, in the forms that servers in the field send, and Values of them (WIRE 11).

As in p4p: ``NTScalar("double", display=True)`` has a `type`, and `wrap` makes a Value of a plain Python value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, Unpack

import numpy as np

from .. import _backend
from ..errors import EncodeError
from .annotate import NS, Metadata, Time, annotate, carried, split_time
from .meta import Meta
from .readers import read
from .results import Bool

FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value
UnionValue = _backend.value.UnionValue
alarm_t = _backend.introspection.alarm_t
time_t = _backend.introspection.time_t
enum_t = _backend.introspection.enum_t

Spec: TypeAlias = "str | FieldDesc | Mapping[str, Any]"
Fields: TypeAlias = "Mapping[str, Spec] | Iterable[tuple[str, Spec]]"
# Whose layout of display, control and valueAlarm: fields, their order and types, ids of the structures.
Style = Literal["pvxs", "p4p", "qsrv", "pvdata"]

_time: Final = FieldDesc.structure("", {name: time_t[name] for name in time_t.members})


def _pairs(fields: Fields) -> list[tuple[str, Spec]]:
    return list(fields.items() if isinstance(fields, Mapping) else fields)


def _structure(name: str, *parts: Fields) -> FieldDesc:
    return FieldDesc.structure(f"epics:nt/{name}:1.0", [pair for part in parts for pair in _pairs(part)])


def common(
    *, descriptor: bool = True, alarm: bool = True, time: bool = True, style: Style = "pvxs"
) -> dict[str, Spec]:
    """The members that most normative types have after their value."""
    found: dict[str, Spec] = {}
    if descriptor:
        found["descriptor"] = "string"
    if alarm:
        found["alarm"] = alarm_t
    if time:
        found["timeStamp"] = _time if style == "qsrv" else time_t
    return found


def _element(fd: FieldDesc) -> FieldDesc:
    return fd if fd.element is None else fd.element


def _display(one: FieldDesc, form: bool, style: Style) -> FieldDesc:
    if style == "pvdata":
        limits, id = FieldDesc.of("double"), "display_t"
    else:
        limits, id = (FieldDesc.of("double") if style == "qsrv" else one), ""
    texts: list[tuple[str, Spec]] = [("description", "string"), ("units", "string")]
    if style in ("pvxs", "p4p") and (one.dtype is None or one.dtype.kind == "b"):
        return FieldDesc.structure(id, texts)
    members: list[tuple[str, Spec]] = [("limitLow", limits), ("limitHigh", limits)]
    shown: list[tuple[str, Spec]] = [("precision", "int32"), ("form", enum_t)]
    if style == "qsrv" or (style == "pvxs" and form):
        members += texts + shown
    elif style == "pvxs":
        members += texts
    else:
        members += texts[:1] + (shown if style == "p4p" and form else [("format", "string")]) + texts[1:]
    return FieldDesc.structure(id, members)


def _control(one: FieldDesc, style: Style) -> FieldDesc:
    own = style in ("pvxs", "p4p")
    limits = one if own else FieldDesc.of("double")
    members = {"limitLow": limits, "limitHigh": limits, "minStep": limits}
    return FieldDesc.structure("" if own else "control_t", members)


def _value_alarm(one: FieldDesc, style: Style) -> FieldDesc:
    own = style in ("pvxs", "p4p")
    limits = one if own else FieldDesc.of("double")
    sides = ("lowAlarm", "lowWarning", "highWarning", "highAlarm")
    members: dict[str, Spec] = {"active": "bool"}
    members.update({f"{side}Limit": limits for side in sides})
    members.update({f"{side}Severity": "int32" for side in sides})
    members["hysteresis"] = "double" if own else "int8"
    return FieldDesc.structure("" if own else "valueAlarm_t", members)


class Builder:
    """A normative type: `type` describes it, `wrap` makes a Value of it, `unwrap` reads one.

    `wrap` marks what it sets. Every `wrap` takes `Metadata` as keywords; it raises EncodeError for what does not fit.
    """

    __slots__ = ("type",)

    type: FieldDesc

    def __init__(self, type: FieldDesc) -> None:
        self.type = type

    def unwrap(self, value: Value) -> Any:
        """What `normative.read` makes of it."""
        return read(value)

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.type.format('short')}>"

    def _made(self, fields: Mapping[str, Any], meta: Metadata) -> Value:
        return annotate(Value(self.type, fields), meta)


class NTScalar(Builder):
    """NTScalar of a scalar type ("double"), NTScalarArray of an array type ("double[]").

    display, control, value_alarm: with these members (pvxs and p4p leave out the last two where values are no numbers);
    form: with display.precision and display.form. descriptor. extra: further members.
    style: whose layout: "pvxs", "p4p", "qsrv" (1) or "pvdata" (normativeTypesCPP, areaDetector).
    """

    __slots__ = ()

    def __init__(
        self,
        type: str | FieldDesc = "double",
        *,
        display: bool = False,
        control: bool = False,
        value_alarm: bool = False,
        form: bool = False,
        descriptor: bool = False,
        style: Style = "pvxs",
        extra: Fields = (),
    ) -> None:
        fd = FieldDesc.of(type)
        one = _element(fd)
        if one.code not in _SCALAR_CODES:
            raise EncodeError(f"NTScalar is of scalars and arrays of them, not of {fd.format('short')}")
        numeric = style in ("qsrv", "pvdata") or (one.dtype is not None and one.dtype.kind != "b")
        members: dict[str, Spec] = {"value": fd, **common(descriptor=descriptor, style=style)}
        if display:
            members["display"] = _display(one, form, style)
        if control and numeric:
            members["control"] = _control(one, style)
        if value_alarm and numeric:
            members["valueAlarm"] = _value_alarm(one, style)
        super().__init__(_structure("NTScalar" if one is fd else "NTScalarArray", members, extra))

    def wrap(self, value: Any, **meta: Unpack[Metadata]) -> Value:
        """A Value of a scalar or array; of one that `read` gave, with its alarm and time. A mapping gives the fields by name."""
        if isinstance(value, Mapping):
            return self._made(value, meta)
        return self._made({"value": value}, carried(value, meta))


_SCALAR_CODES: Final = frozenset(
    FieldDesc.of(name).code
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float", "double", "string"),
    )
)


class NTScalarArray(NTScalar):
    """NTScalarArray; type is that of the elements ("double") or of the array ("double[]"). Else as NTScalar."""

    __slots__ = ()

    def __init__(self, type: str | FieldDesc = "double", **options: Any) -> None:
        fd = FieldDesc.of(type)
        super().__init__(fd.array() if fd.code in _SCALAR_CODES else fd, **options)


class NTEnum(Builder):
    """NTEnum. choices: what `wrap` sends with each value, and finds the index of a str in.

    display: with display.description, as pvxs has it.
    """

    __slots__ = ("choices",)

    def __init__(
        self,
        choices: Iterable[str] = (),
        *,
        display: bool = False,
        descriptor: bool = False,
        style: Style = "pvxs",
        extra: Fields = (),
    ) -> None:
        self.choices = tuple(choices)
        members: dict[str, Spec] = {"value": enum_t, **common(descriptor=descriptor, style=style)}
        if display:
            members["display"] = {"description": "string"}
        super().__init__(_structure("NTEnum", members, extra))

    def wrap(self, value: int | str, choices: Iterable[str] | None = None, **meta: Unpack[Metadata]) -> Value:
        """A Value of an index or of one of the choices. choices: others than those of the builder."""
        allowed = self.choices if choices is None else tuple(choices)
        if isinstance(value, str):
            if value not in allowed:
                raise EncodeError(f"{value!r} is none of the choices {list(allowed)}", "value.index")
            index = allowed.index(value)
        else:
            index = value
        fields: dict[str, Any] = {"value.index": index}
        if allowed:
            fields["value.choices"] = allowed
        return self._made(fields, carried(value, meta))


class NTTable(Builder):
    """NTTable. columns: name to type, of the elements ("double") or of the array. labels: the headings, the names if not given."""

    __slots__ = ("labels",)

    def __init__(
        self,
        columns: Fields,
        labels: Iterable[str] | None = None,
        *,
        style: Style = "pvxs",
        extra: Fields = (),
    ) -> None:
        types = [(name, FieldDesc.of(spec)) for name, spec in _pairs(columns)]
        self.labels = tuple(name for name, _ in types) if labels is None else tuple(labels)
        if len(self.labels) != len(types):
            raise EncodeError(f"{len(self.labels)} labels for {len(types)} columns", "labels")
        value = FieldDesc.structure(
            "", [(name, fd.array() if fd.code in _SCALAR_CODES else fd) for name, fd in types]
        )
        members = {"labels": "string[]", "value": value, **common(style=style)}
        super().__init__(_structure("NTTable", members, extra))

    def wrap(self, table: Mapping[str, Any] | Iterable[Mapping[str, Any]], **meta: Unpack[Metadata]) -> Value:
        """A Value of columns (name to array-like; also a pandas.DataFrame), or of rows (mappings), as p4p takes them.

        Raises EncodeError for columns that differ in length or are missing.
        """
        names = list(self.type["value"].members)
        if isinstance(table, Mapping) or hasattr(table, "columns"):
            columns: dict[str, Any] = {str(name): table[name] for name in table}  # type: ignore[index]
        else:
            rows = list(table)
            columns = {
                name: [row[name] for row in rows] for name in names if all(name in row for row in rows)
            }
        if columns.keys() != set(names):
            raise EncodeError(f"columns {names} expected, {list(columns)} found", "value")
        columns = {
            name: column if isinstance(column, np.ndarray | list | tuple) else _listed(column)
            for name, column in columns.items()
        }
        if len({len(column) for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise EncodeError(f"columns differ in length: {lengths}", "value")
        fields: dict[str, Any] = {"labels": self.labels}
        if columns:
            fields["value"] = Value(self.type["value"], columns)
        return self._made(fields, carried(table, meta))


def _listed(column: Any) -> Any:
    """A pandas column, or any other iterable, as what a leaf takes."""
    array = np.asarray(column) if hasattr(column, "__array__") else list(column)
    return array.tolist() if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf" else array


class NTMatrix(Builder):
    """NTMatrix: float64, a vector or rows × columns."""

    __slots__ = ()

    def __init__(self, *, display: bool = False, style: Style = "pvdata", extra: Fields = ()) -> None:
        members: dict[str, Spec] = {"value": "double[]", "dim": "int32[]", **common(style=style)}
        if display:
            members["display"] = _display(FieldDesc.of("double"), False, style)
        super().__init__(_structure("NTMatrix", members, extra))

    def wrap(self, value: Any, **meta: Unpack[Metadata]) -> Value:
        """A Value of an array-like of one or two dimensions. Raises EncodeError for others."""
        array = np.asarray(value)
        if array.ndim not in (1, 2):
            raise EncodeError(f"one or two dimensions expected, {array.ndim} found", "value")
        fields = {"value": np.ascontiguousarray(array).reshape(-1), "dim": array.shape}
        return self._made(fields, carried(value, meta))


class NTURI(Builder):
    """NTURI. query: argument name to type."""

    __slots__ = ()

    def __init__(self, query: Fields = (), *, extra: Fields = ()) -> None:
        members: dict[str, Spec] = {"scheme": "string", "authority": "string", "path": "string"}
        members["query"] = FieldDesc.structure("", _pairs(query))
        super().__init__(_structure("NTURI", members, extra))

    def wrap(
        self, path: str, query: Mapping[str, Any] | None = None, *, scheme: str = "pva", authority: str = ""
    ) -> Value:
        """A Value of a channel name and arguments; of those that are not given, the type has no member."""
        given = {} if query is None else dict(query)
        types = self.type["query"].members
        unknown = given.keys() - types.keys()
        if unknown:
            raise EncodeError(f"no argument {min(unknown)!r}", "query")
        members = {name: self.type[name] for name in self.type.members}
        members["query"] = FieldDesc.structure("", {name: types[name] for name in types if name in given})
        fields: dict[str, Any] = {"scheme": scheme, "path": path}
        if authority:
            fields["authority"] = authority
        made = Value(FieldDesc.structure(self.type.id, members), fields)
        for name, x in given.items():
            made[("query", name)] = x
        return made

    @classmethod
    def of(cls, path: str, query: Mapping[str, Any], *, scheme: str = "pva", authority: str = "") -> Value:
        """A Value whose argument types are those of the plain values given."""
        return cls({name: infer(x) for name, x in query.items()}).wrap(
            path, query, scheme=scheme, authority=authority
        )


def infer(x: Any) -> FieldDesc:
    """The pvData type that a plain value has. Raises EncodeError where none is evident."""
    boxed = Value("any", plain(x))[""]
    if boxed is None:
        raise EncodeError("no pvData type is evident for None")
    found: FieldDesc = boxed.type
    return found


class NTNameValue(Builder):
    """NTNameValue; type is that of the values ("double")."""

    __slots__ = ()

    def __init__(
        self, type: str | FieldDesc = "double", *, style: Style = "pvxs", extra: Fields = ()
    ) -> None:
        members = {"name": "string[]", "value": FieldDesc.of(type).array(), **common(style=style)}
        super().__init__(_structure("NTNameValue", members, extra))

    def wrap(self, value: Mapping[str, Any], **meta: Unpack[Metadata]) -> Value:
        """A Value of names and values."""
        return self._made({"name": list(value), "value": list(value.values())}, carried(value, meta))


class NTAttribute(Builder):
    """NTAttribute. source: with sourceType and source, as the attributes of NTNDArray have them."""

    __slots__ = ()

    def __init__(self, *, source: bool = False, style: Style = "pvxs", extra: Fields = ()) -> None:
        members: dict[str, Spec] = {
            "name": "string",
            "value": "any",
            "tags": "string[]",
            **common(style=style),
        }
        if source and style == "pvdata":
            time = {name: members.pop(name) for name in ("alarm", "timeStamp")}
            members |= {"sourceType": "int32", "source": "string", **time}
        elif source:
            members |= {"sourceType": "int32", "source": "string"}
        super().__init__(_structure("NTAttribute", members, extra))

    def wrap(
        self,
        name: str,
        value: Any,
        *,
        tags: Iterable[str] = (),
        source_type: int | None = None,
        source: str | None = None,
        **meta: Unpack[Metadata],
    ) -> Value:
        """A Value of a name and any value."""
        fields: dict[str, Any] = {"name": name, "value": plain(value), "tags": list(tags)}
        if source_type is not None:
            fields["sourceType"] = source_type
        if source is not None:
            fields["source"] = source
        return self._made(fields, carried(value, meta))


def plain(x: Any) -> Any:
    """A result of `read` as what an any takes; everything else as it is."""
    if isinstance(x, Meta) and isinstance(x, np.ndarray):
        return np.asarray(x)
    if isinstance(x, Bool):
        return bool(x)
    return x


class NTUnion(Builder):
    """NTUnion: of an any, or with `members` (name to type) of a union."""

    __slots__ = ()

    def __init__(self, members: Fields | None = None, *, style: Style = "pvxs", extra: Fields = ()) -> None:
        boxed = FieldDesc.of("any") if members is None else FieldDesc.union("", _pairs(members))
        super().__init__(_structure("NTUnion", {"value": boxed, **common(style=style)}, extra))

    def wrap(self, value: Any, **meta: Unpack[Metadata]) -> Value:
        """A Value of what a union or any takes: a UnionValue, AnyValue or plain value; None is the null."""
        return self._made({"value": plain(value)}, carried(value, meta))


_PER_CHANNEL: Final = {
    "severity": "int32[]",
    "status": "int32[]",
    "message": "string[]",
    "secondsPastEpoch": "int64[]",
    "nanoseconds": "int32[]",
    "userTag": "int32[]",
    "isConnected": "bool[]",
}


class NTMultiChannel(Builder):
    """NTMultiChannel; type is that of one value: "any", or a union."""

    __slots__ = ()

    _NAME = "NTMultiChannel"

    def __init__(self, type: Spec = "any", *, style: Style = "pvxs", extra: Fields = ()) -> None:
        members = {"value": FieldDesc.of(type).array(), "channelName": "string[]", **common(style=style)}
        super().__init__(_structure(self._NAME, members, _PER_CHANNEL, extra))

    def wrap(
        self,
        value: Mapping[str, Any],
        *,
        severities: Any = None,
        statuses: Any = None,
        messages: Any = None,
        timestamps_ns: Any = None,
        user_tags: Any = None,
        connected: Any = None,
        **meta: Unpack[Metadata],
    ) -> Value:
        """A Value of channel names and values, and of columns with an element for each channel."""
        fields: dict[str, Any] = {"channelName": list(value), "value": list(value.values())}
        if timestamps_ns is not None:
            seconds, nanoseconds = np.divmod(np.asarray(timestamps_ns, np.int64), NS)
            fields |= {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds.astype(np.int32)}
        columns = {"severity": severities, "status": statuses, "message": messages}
        columns |= {"userTag": user_tags, "isConnected": connected}
        fields |= {name: column for name, column in columns.items() if column is not None}
        for name, column in fields.items():
            if len(column) != len(value):
                raise EncodeError(f"{len(column)} elements for {len(value)} channels", name)
        return self._made(fields, meta)


class NTScalarMultiChannel(NTMultiChannel):
    """NTScalarMultiChannel; type is that of one value ("double")."""

    __slots__ = ()

    _NAME = "NTScalarMultiChannel"

    def __init__(self, type: Spec = "double", *, style: Style = "pvxs", extra: Fields = ()) -> None:
        super().__init__(type, style=style, extra=extra)


class NTContinuum(Builder):
    """NTContinuum."""

    __slots__ = ()

    def __init__(self, *, style: Style = "pvxs", extra: Fields = ()) -> None:
        members: dict[str, Spec] = {"base": "double[]", "value": "double[]", "units": "string[]"}
        super().__init__(_structure("NTContinuum", members, common(style=style), extra))

    def wrap(self, base: Any, value: Any, value_units: Iterable[str] = (), **meta: Unpack[Metadata]) -> Value:
        """A Value of n points: base (n,), value (n,) or (n, m); value_units: of the m values and the base."""
        points, values = np.asarray(base), np.asarray(value)
        if values.ndim not in (1, 2) or len(values) != len(points):
            raise EncodeError(f"values of shape {values.shape} for {len(points)} points", "value")
        fields = {
            "base": points,
            "value": np.ascontiguousarray(values).reshape(-1),
            "units": list(value_units),
        }
        return self._made(fields, meta)


class NTHistogram(Builder):
    """NTHistogram; type is that of the counts: "int16", "int32" or "int64"."""

    __slots__ = ()

    def __init__(self, type: str | FieldDesc = "int64", *, style: Style = "pvxs", extra: Fields = ()) -> None:
        members = {"ranges": "double[]", "value": FieldDesc.of(type).array(), **common(style=style)}
        super().__init__(_structure("NTHistogram", members, extra))

    def wrap(self, counts: Any, ranges: Any, **meta: Unpack[Metadata]) -> Value:
        """A Value of what numpy.histogram returns: counts (n,), ranges (n + 1,)."""
        if len(ranges) != len(counts) + 1:
            raise EncodeError(f"{len(ranges)} edges for {len(counts)} bins", "ranges")
        return self._made({"ranges": ranges, "value": counts}, meta)


class NTAggregate(Builder):
    """NTAggregate, with all its optional members."""

    __slots__ = ()

    def __init__(self, *, style: Style = "pvxs", extra: Fields = ()) -> None:
        time = common(style=style)["timeStamp"]
        members: dict[str, Spec] = {
            "value": "double",
            "N": "int64",
            "dispersion": "double",
            "first": "double",
            "firstTimeStamp": time,
            "last": "double",
            "lastTimeStamp": time,
            "max": "double",
            "min": "double",
        }
        super().__init__(_structure("NTAggregate", members, common(style=style), extra))

    def wrap(
        self,
        value: float,
        count: int,
        *,
        dispersion: float | None = None,
        first: float | None = None,
        first_timestamp: Time | None = None,
        last: float | None = None,
        last_timestamp: Time | None = None,
        max: float | None = None,
        min: float | None = None,
        **meta: Unpack[Metadata],
    ) -> Value:
        """A Value of the centre and number of observations and what else is known of them."""
        fields: dict[str, Any] = {"value": value, "N": count}
        optional = {"dispersion": dispersion, "first": first, "last": last, "max": max, "min": min}
        fields |= {name: x for name, x in optional.items() if x is not None}
        made = self._made(fields, meta)
        for name, time in (("firstTimeStamp", first_timestamp), ("lastTimeStamp", last_timestamp)):
            if time is not None:
                made[f"{name}.secondsPastEpoch"], made[f"{name}.nanoseconds"] = split_time(time)
        return made
