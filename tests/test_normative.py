"""Normative types: what recorded servers sent is read as they meant it; what is built reads back, and has the members of others' types."""

from __future__ import annotations

import copy
import math
import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import corpus
import told
from corpus import compare
from pvafast import AnyValue, Codec, FieldDesc, UnionValue, Value, alarm_t, normative, time_t
from pvafast.errors import EncodeError, NormativeError
from pvafast.normative import (
    NTURI,
    NTAggregate,
    NTAttribute,
    NTContinuum,
    NTEnum,
    NTHistogram,
    NTMatrix,
    NTMultiChannel,
    NTNameValue,
    NTScalar,
    NTScalarArray,
    NTScalarMultiChannel,
    NTTable,
    NTUnion,
    read,
)


def sent(value: Value) -> Value:
    """The value as another program receives it: its fields in one direction, its type first."""
    out, back = Codec(), Codec()
    fd, _ = back.decode_type(out.encode_type(value.type))
    assert fd is not None
    made, _ = back.decode(fd, out.encode(value))
    return made


# --- recorded servers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("session", ["p4p_nts", "p4pBE_nts", "p4p_ntsa", "p4pBE_ntsa"])
def test_scalars_of_p4p(session: str) -> None:
    entries = {entry["pv"]: entry["value"]["fields"] for entry in corpus.sessions()[session].expected}
    found = told.values(session)
    assert len(found) == 12
    kinds = {
        "bool": normative.Bool,
        "float": normative.Float,
        "double": normative.Float,
        "string": normative.Text,
    }
    for pv, value in found:
        x, fields, name = read(value), entries[pv], pv.partition(":")[2]
        if session.endswith("ntsa"):
            assert type(x) is (normative.Texts if name == "string" else normative.Array)
            compare(fields["value"], np.asarray(x) if isinstance(x, np.ndarray) else list(x), pv)
        else:
            assert type(x) is kinds.get(name, normative.Int)
            assert type(x).__mro__[2] is type(fields["value"]) or name == "bool"
            assert x == fields["value"]
        alarm, time = fields["alarm"]["fields"], fields["timeStamp"]["fields"]
        assert {"severity": x.severity, "status": x.status, "message": x.message} == alarm
        assert x.raw_stamp == (time["secondsPastEpoch"], time["nanoseconds"]) == (1700000000, 123456789)
        assert x.timestamp_ns == 1700000000123456789
        assert x.timestamp == pytest.approx(1700000000.123456789, abs=3e-7)
        assert x.user_tag == time["userTag"] == 42
        assert x.raw is value


def test_the_rest_of_p4p() -> None:
    choice = read(told.value("p4p_ntypes", "ntenum"))
    assert (int(choice), choice.index, choice.choice, str(choice)) == (1, 1, "ON", "ON")
    assert choice.choices == ("OFF", "ON", "Trouble µ")

    table = read(told.value("p4p_ntypes", "nttable"))
    (entry,) = (e for e in corpus.sessions()["p4p_ntypes"].expected if e["pv"] == "nttable")
    compare(entry["value"]["fields"]["value"]["fields"], dict(table))
    assert table.labels == ("idx", "name", "val", "ok")
    assert {name: len(column) for name, column in table.items()} == dict.fromkeys(table, 7)
    empty = read(told.value("p4p_ntypes", "nttable:empty"))
    assert {name: len(column) for name, column in empty.items()} == dict.fromkeys(table, 0)
    assert list(empty.rows()) == []

    channels = read(told.value("p4p_ntypes", "ntmulti"))
    assert list(channels) == ["a", "b", "c", "d", "e"]
    assert [channels[name].value for name in "abcd"] == [1.5, "str", 42, True]
    assert channels["e"].value.tolist() == [0, 1, 2, 3, 4]
    assert [channel.connected for channel in channels.values()] == [True, True, True, False, True]
    assert channels["a"].severity == 0
    assert channels["a"].status is channels["a"].timestamp_ns is channels["a"].message is None
    assert channels.description == "multi"

    uri = read(told.value("p4p_ntypes", "nturi"))
    assert (uri.scheme, uri.authority, uri.path) == ("pva", "", "rpc:add")
    assert uri.query == {"lhs": 1.0, "rhs": 2.5, "name": "q"}
    assert str(uri) == "pva:rpc:add?lhs=1.0&rhs=2.5&name=q"


def test_what_pvapy_sends() -> None:
    assert str(read(told.value("pvapy_ntypes", "ntenum"))) == "ON"
    table = read(told.value("pvapy_ntypes", "nttable"))
    assert table.labels == ("a", "b", "c")
    assert list(table.rows()) == [
        {"column0": 1, "column1": 1.5, "column2": "x"},
        {"column0": 2, "column1": 2.5, "column2": "y"},
        {"column0": 3, "column1": 3.5, "column2": "z"},
    ]
    nested = told.value("pvapy_ntypes", "nested")
    assert read(nested) is nested


# --- reading ----------------------------------------------------------------------------------------------------------


QSRV = """struct "epics:nt/NTScalar:1.0" {
    double value
    struct "alarm_t" {
        int32_t severity
        int32_t status
        string message
    } alarm
    struct {
        int64_t secondsPastEpoch
        int32_t nanoseconds
        int32_t userTag
    } timeStamp
    struct {
        double limitLow
        double limitHigh
        string description
        string units
        int32_t precision
        struct "enum_t" {
            int32_t index
            string[] choices
        } form
    } display
    struct "control_t" {
        double limitLow
        double limitHigh
        double minStep
    } control
    struct "valueAlarm_t" {
        bool active
        double lowAlarmLimit
        double lowWarningLimit
        double highWarningLimit
        double highAlarmLimit
        int32_t lowAlarmSeverity
        int32_t lowWarningSeverity
        int32_t highWarningSeverity
        int32_t highAlarmSeverity
        int8_t hysteresis
    } valueAlarm
}
"""


def test_metadata_of_qsrv() -> None:
    form = {"index": 1, "choices": ["Default", "String", "Binary"]}
    fields = {
        "value": 21.5,
        "display": {"limitLow": -10, "limitHigh": 40, "description": "Hall", "units": "C", "precision": 2},
        "display.form": form,
        "control": {"limitLow": 0, "limitHigh": 30, "minStep": 0.5},
        "valueAlarm": {"active": True, "highAlarmLimit": 35, "highAlarmSeverity": 2, "hysteresis": 1},
    }
    fd = FieldDesc.parse(QSRV)
    assert NTScalar("double", display=True, control=True, value_alarm=True, style="qsrv").type == fd
    value = Value(fd, fields)
    x = read(sent(value))
    assert x == 21.5
    assert (x.units, x.description) == ("C", "Hall")
    assert x.display == normative.Display(
        limit_low=-10, limit_high=40, description="Hall", units="C", precision=2, form="String"
    )
    assert x.control == normative.Control(limit_low=0, limit_high=30, min_step=0.5)
    assert x.value_alarm.active is True
    assert (x.value_alarm.high_alarm_limit, x.value_alarm.high_alarm_severity) == (35, 2)
    assert x.value_alarm.hysteresis == 1


def scalar(**fields: Any) -> Value:
    members = {"value": "double", **{name: spec for name, (spec, _) in fields.items()}}
    fd = FieldDesc.structure("epics:nt/NTScalar:1.0", members)
    return Value(fd, {"value": 1.5, **{name: x for name, (_, x) in fields.items()}})


def test_optional_fields_may_be_missing() -> None:
    x = read(scalar())
    assert (x, x.severity, x.status, x.message, x.timestamp, x.timestamp_ns) == (1.5, 0, 0, "", 0.0, 0)
    assert (x.units, x.description, x.raw_stamp, x.user_tag) == ("", "", (0, 0), 0)
    assert x.display is x.control is x.value_alarm is None
    assert read(scalar(descriptor=("string", "here"))).description == "here"
    x = read(scalar(display=({"units": "string"}, {"units": "V"})))
    assert x.display == normative.Display(units="V")
    assert x.display.precision is None


def test_fields_of_other_types_do_no_harm() -> None:
    x = read(
        scalar(
            alarm=("int32", 3),
            timeStamp=({"secondsPastEpoch": "string", "nanoseconds": "double[]"}, {}),
            display=({"units": "int32", "form": "string", "precision": "string"}, {}),
            control=("any", None),
        )
    )
    assert (x.severity, x.timestamp_ns, x.units, x.control) == (0, 0, "", None)
    assert x.display == normative.Display()
    x = read(scalar(display=({"form": {"index": "int32", "choices": "string[]"}}, {"form.index": 7})))
    assert x.display.form == ""


def test_fields_are_found_by_name() -> None:
    fd = FieldDesc.structure(
        "epics:nt/NTEnum:1.0",
        timeStamp=time_t,
        extra="int32",
        value=FieldDesc.structure("enum_t", choices="string[]", index="int32"),
        alarm=alarm_t,
    )
    choice = read(Value(fd, {"value": {"index": 2, "choices": ["a", "b"]}, "alarm.severity": 3}))
    assert (choice, choice.choice, str(choice), choice.severity) == (2, None, "2", 3)


@pytest.mark.parametrize(
    ("id", "kind"),
    [
        ("epics:nt/NTScalar:1.0", "NTScalar"),
        ("epics:nt/NTScalar:1.7", "NTScalar"),
        ("epics:nt/NTScalar:1.12", "NTScalar"),
        ("epics:nt/NTScalar:2.0", ""),
        ("epics:nt/NTScalar", ""),
        ("epics:nt/NTScalar:1.", ""),
        ("epics:nt/NTScalar:1.0 ", ""),
        ("my:nt/NTScalar:1.0", ""),
        ("structure", ""),
        ("", ""),
    ],
)
def test_minor_versions(id: str, kind: str) -> None:
    assert normative.kind(id) == kind
    value = Value(FieldDesc.structure(id, value="double"), {"value": 2.5})
    assert read(value) == 2.5 if kind else read(value) is value


def test_values_that_are_no_structure() -> None:
    value = Value("double", 1.5)
    assert read(value) is value
    unknown = Value(FieldDesc.structure("epics:nt/NTFuture:1.0", value="double"))
    assert read(unknown) is unknown


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("NTScalar", {}),
        ("NTScalar", {"value": {"x": "double"}}),
        ("NTScalar", {"value": "any"}),
        ("NTScalarArray", {"value": FieldDesc.structure("", x="double").array()}),
        ("NTEnum", {"value": "int32"}),
        ("NTEnum", {"value": {"index": "string"}}),
        ("NTEnum", {}),
        ("NTTable", {"labels": "string[]"}),
        ("NTTable", {"value": "double[]"}),
        ("NTTable", {"value": {"a": "double"}}),
        ("NTTable", {"value": {"a": "any"}}),
        ("NTMatrix", {"value": "double"}),
        ("NTURI", {"scheme": "string"}),
        ("NTNameValue", {"name": "string[]"}),
        ("NTNameValue", {"name": "double[]", "value": "double[]"}),
        ("NTAttribute", {"value": "any"}),
        ("NTUnion", {}),
        ("NTMultiChannel", {"value": "any[]"}),
        ("NTScalarMultiChannel", {"channelName": "string[]"}),
        ("NTContinuum", {"base": "double[]"}),
        ("NTHistogram", {"ranges": "string[]", "value": "int32[]"}),
        ("NTAggregate", {"N": "int64"}),
        ("NTNDArray", {"value": "double"}),
    ],
)
def test_structures_that_are_not_what_they_say(name: str, members: dict[str, Any]) -> None:
    value = Value(FieldDesc.structure(f"epics:nt/{name}:1.0", members))
    boxed = members.get("value")
    if isinstance(boxed, FieldDesc):
        value["value"] = [{"x": 1}]
    with pytest.raises(NormativeError, match=f"{name}"):
        read(value)


@pytest.mark.parametrize(
    ("name", "members", "fields"),
    [
        ("NTMatrix", {"value": "double[]", "dim": "int32[]"}, {"value": [1, 2, 3], "dim": [2, 2]}),
        ("NTMatrix", {"value": "double[]", "dim": "int32[]"}, {"value": [1], "dim": [-1, -1]}),
        ("NTMatrix", {"value": "double[]", "dim": "int32[]"}, {"value": [1], "dim": [1, 1, 1]}),
        ("NTMatrix", {"value": "double[]", "dim": "int32[]"}, {"value": [], "dim": [2**31 - 1] * 2}),
        ("NTNameValue", {"name": "string[]", "value": "double[]"}, {"name": ["a"], "value": [1, 2]}),
        ("NTMultiChannel", {"channelName": "string[]", "value": "any[]"}, {"channelName": ["a"]}),
        (
            "NTScalarMultiChannel",
            {"channelName": "string[]", "value": "double[]", "severity": "int32[]"},
            {"channelName": ["a"], "value": [1], "severity": [1, 2]},
        ),
        ("NTContinuum", {"base": "double[]", "value": "double[]"}, {"base": [1, 2], "value": [1, 2, 3]}),
        ("NTContinuum", {"base": "double[]", "value": "double[]"}, {"value": [1]}),
        ("NTHistogram", {"ranges": "double[]", "value": "int32[]"}, {"ranges": [1], "value": [1]}),
    ],
)
def test_lengths_that_do_not_fit(name: str, members: dict[str, Any], fields: dict[str, Any]) -> None:
    with pytest.raises(NormativeError, match=name):
        read(Value(FieldDesc.structure(f"epics:nt/{name}:1.0", members), fields))


# --- results ----------------------------------------------------------------------------------------------------------


META = {"severity": 2, "status": 1, "message": "hot", "timestamp_ns": 1700000000123456789, "user_tag": 5}


def results() -> list[Any]:
    edges = NTHistogram().wrap([1, 2], [0.0, 1.0, 2.0], **META)
    return [
        NTScalar("double").wrap(1.5, **META),
        NTScalar("int16").wrap(-3, **META),
        NTScalar("bool").wrap(True, **META),
        NTScalar("string").wrap("µ", **META),
        NTScalar("uint8[]").wrap([1, 2], **META),
        NTScalar("string[]").wrap(["a", ""], **META),
        NTEnum(["OFF", "ON"]).wrap("ON", **META),
        NTTable({"a": "int32", "b": "string"}).wrap({"a": [1], "b": ["x"]}, **META),
        NTMatrix().wrap([[1, 2], [3, 4]], **META),
        NTNameValue("double").wrap({"a": 1}, **META),
        NTAttribute().wrap("gain", 2.5, **META),
        NTUnion().wrap(3, **META),
        NTMultiChannel().wrap({"p": 1.5}, **META),
        NTScalarMultiChannel("int32").wrap({"p": 1}, **META),
        NTContinuum().wrap([1, 2], [3, 4], ["V", "s"], **META),
        edges,
        NTAggregate().wrap(1.5, 10, **META),
    ]


@pytest.mark.parametrize("value", results(), ids=lambda value: normative.kind(value.type.id))
def test_every_result_carries_its_metadata(value: Value) -> None:
    for again in (lambda x: x, lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy):
        x = again(read(sent(value)))
        assert x.raw == value
        assert (x.severity, x.status, x.message, x.user_tag) == (2, 1, "hot", 5)
        assert x.timestamp_ns == 1700000000123456789
        assert isinstance(x, normative.Meta)
        assert repr(x)
        assert "hot" not in repr(x)


def test_numbers_and_strings_are_what_they_seem() -> None:
    x = read(NTScalar("double").wrap(1.5))
    assert isinstance(x, float)
    assert (x + 1, repr(x), f"{x:.2f}", math.floor(x)) == (2.5, "1.5", "1.50", 1)
    assert type(x + 1) is float
    i = read(NTScalar("uint64").wrap(2**64 - 1))
    assert isinstance(i, int)
    assert [10, 20][read(NTScalar("int8").wrap(1))] == 20
    assert i == 2**64 - 1
    yes, no = read(NTScalar("bool").wrap(True)), read(NTScalar("bool").wrap(False))
    assert (repr(yes), str(no), bool(yes), bool(no), yes == True) == ("True", "False", True, False, True)  # noqa: E712
    assert read(NTScalar("string").wrap("abc")).upper() == "ABC"
    assert hash(x) == hash(1.5)


def test_arrays_keep_their_metadata_where_they_are_views() -> None:
    value = sent(NTScalar("int16[]", display=True).wrap([1, 2, 3, 4], units="mm"))
    x = read(value)
    assert isinstance(x, np.ndarray)
    assert np.shares_memory(x, value["value"])
    assert not x.flags.writeable
    assert x[1:].units == "mm"
    for calculated in (x + 1, np.sqrt(x), x.sum(), x.mean(), x.astype(float) * 2, x.max()):
        assert not isinstance(calculated, normative.Array)
    assert x.sum() == 10
    assert type(x.sum()) is np.int64
    assert x[0] == 1
    assert normative.Array([1, 2]).units == ""
    with pytest.raises(ValueError):
        x[0] = 7


def test_choices() -> None:
    nt = NTEnum(["OFF", "ON"])
    x = nt.unwrap(nt.wrap(1))
    assert (x == 1, x.index, x.choice, f"{x}", f"{x:03d}", repr(x)) == (
        True,
        1,
        "ON",
        "ON",
        "001",
        "Choice(1, 'ON')",
    )
    assert read(nt.wrap(-1)).choice is None
    assert read(NTEnum().wrap(5)).choices == ()
    assert str(read(NTEnum().wrap(0, choices=["a"]))) == "a"
    with pytest.raises(EncodeError, match="'MAYBE' is none of the choices"):
        nt.wrap("MAYBE")


def test_tables() -> None:
    nt = NTTable({"x": "double", "name": "string", "ok": "bool[]"}, labels=["X (mm)", "Name", "OK"])
    columns = {"x": [1.5, 2.5], "name": ["a", "b"], "ok": [True, False]}
    table = read(nt.wrap(columns))
    assert isinstance(table, dict)
    assert table["x"].tolist() == [1.5, 2.5]
    assert table.labels == ("X (mm)", "Name", "OK")
    rows = [{"x": 1.5, "name": "a", "ok": True}, {"x": 2.5, "name": "b", "ok": False}]
    assert list(table.rows()) == rows
    assert nt.wrap(rows) == nt.wrap(columns) == nt.wrap(table)
    assert read(nt.wrap([]))["x"].tolist() == []
    with pytest.raises(EncodeError, match=r"differ in length: x 1, name 2, ok 1 at `value`"):
        nt.wrap({"x": [1], "name": ["a", "b"], "ok": [True]})
    with pytest.raises(EncodeError, match=r"columns \['x', 'name', 'ok'\] expected, \['x'\] found"):
        nt.wrap({"x": [1]})
    with pytest.raises(EncodeError, match="2 labels for 1 columns"):
        NTTable({"x": "double"}, labels=["a", "b"])
    ragged = Value(nt.type, {"value": {"x": [1.0], "name": [], "ok": []}})
    with pytest.raises(NormativeError, match="differ in length: x 1, name 0, ok 0"):
        read(ragged).rows()
    assert read(ragged).labels == ("x", "name", "ok")


def test_tables_as_those_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    nt = NTTable({"x": "double", "n": "int16", "s": "string"}, labels=["X", "N", "X"])
    table = read(sent(nt.wrap({"x": [1.5, 2.5], "n": [1, 2], "s": ["a", "b"]})))
    frame = table.to_pandas()
    assert list(frame.columns) == ["X", "N", "X"]
    plain = table.to_pandas(labels=False)
    assert list(plain.columns) == ["x", "n", "s"]
    assert plain["n"].dtype == np.int16
    assert plain["x"].tolist() == [1.5, 2.5]
    assert plain["s"].tolist() == ["a", "b"]
    assert nt.wrap(plain) == nt.wrap(table)
    assert isinstance(plain, pandas.DataFrame)
    with pytest.raises(NormativeError, match="differ in length"):
        read(Value(nt.type, {"value.x": [1.0]})).to_pandas()


def test_tables_as_those_of_arrow() -> None:
    pytest.importorskip("pyarrow")
    nt = NTTable({"x": "double", "n": "uint8", "s": "string", "ok": "bool"})
    table = read(sent(nt.wrap({"x": [1.5], "n": [1], "s": ["a"], "ok": [True]}))).to_arrow()
    assert table.schema.names == ["x", "n", "s", "ok"]
    assert [str(field.type) for field in table.schema] == ["double", "uint8", "string", "bool"]
    assert table.to_pylist() == [{"x": 1.5, "n": 1, "s": "a", "ok": True}]


def test_strings_that_are_not_utf8_in_tables() -> None:
    """Servers send any bytes: a table of pandas keeps them, one of pyarrow has U+FFFD for them; empty columns keep their type."""
    nt = NTTable({"s": "string", "x": "double"}, labels=["S\udcfe", "X"])
    some = read(sent(nt.wrap({"s": ["a", "b\udcff"], "x": [1.5, 2.5]})))
    none = read(sent(nt.wrap({"s": [], "x": []})))
    pandas = pytest.importorskip("pandas")
    frame = some.to_pandas()
    assert list(frame.columns) == ["S\udcfe", "X"]
    assert frame["S\udcfe"].tolist() == ["a", "b\udcff"]
    assert nt.wrap(some.to_pandas(labels=False)) == nt.wrap(some)
    empty = none.to_pandas(labels=False)
    assert pandas.api.types.is_string_dtype(empty["s"].dtype)
    assert empty["x"].dtype == np.float64
    pytest.importorskip("pyarrow")
    table = some.to_arrow()
    assert table.to_pydict() == {"S\ufffd": ["a", "b\ufffd"], "X": [1.5, 2.5]}
    assert [str(field.type) for field in none.to_arrow().schema] == ["string", "double"]


def test_matrices() -> None:
    nt = NTMatrix(display=True)
    x = read(sent(nt.wrap([[1, 2, 3], [4, 5, 6]], units="mm")))
    assert x.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (x.units, x.dtype) == ("mm", np.float64)
    assert nt.wrap(np.asfortranarray([[1, 2], [3, 4]]))["value"].tolist() == [1, 2, 3, 4]
    assert read(nt.wrap([1, 2])).shape == (2,)
    no_dim = FieldDesc.structure("epics:nt/NTMatrix:1.0", value="double[]")
    assert read(Value(no_dim, {"value": [1, 2, 3]})).shape == (3,)
    assert read(Value(nt.type, {"value": [1, 2, 3]})).shape == (3,)
    with pytest.raises(EncodeError, match="one or two dimensions expected, 3 found"):
        nt.wrap(np.zeros((2, 2, 2)))


def test_uris() -> None:
    nt = NTURI({"a": "double", "b": "string", "c": "int32[]"})
    value = nt.wrap("svc", {"b": "x y", "a": 1}, authority="host:5075")
    assert list(value.type["query"].members) == ["a", "b"]
    uri = read(sent(value))
    assert (uri.query, str(uri)) == ({"a": 1.0, "b": "x y"}, "pva://host:5075/svc?a=1.0&b=x+y")
    with pytest.raises(EncodeError, match="no argument 'z'"):
        nt.wrap("svc", {"z": 1})
    value = NTURI.of("svc", {"f": 1.5, "s": "x", "n": 3, "flag": True, "list": [1.0, 2.0]})
    kinds = {name: member.format("short") for name, member in value.type["query"].members.items()}
    assert kinds == {"f": "double", "s": "string", "n": "int64", "flag": "bool", "list": "double[]"}
    assert read(Value(FieldDesc.structure("epics:nt/NTURI:1.0", path="string"), {"path": "x"})).query == {}


def test_a_uri_that_is_not_utf8() -> None:
    """A byte 0x80 in a string, a surrogate in Python: it is escaped as the byte that it is (RFC 3986, 2.1)."""
    value = NTURI({"a": "string"}).wrap("\udc80", {"a": "x \udc80"})
    assert str(read(sent(value))) == "pva:%80?a=x+%80"


def test_attributes_and_unions() -> None:
    x = read(NTAttribute(source=True).wrap("T", 3.5, tags=["a"], descriptor="d", source_type=2, source="pv"))
    assert (x.name, x.value, x.tags, x.descriptor, x.source_type, x.source) == (
        "T",
        3.5,
        ("a",),
        "d",
        2,
        "pv",
    )
    assert read(NTAttribute().wrap("T", None)).value is None
    assert read(NTAttribute().wrap("T", 1)).source_type is None
    inner = NTScalar("double").wrap(1.5, severity=1)
    x = read(NTUnion().wrap(AnyValue(inner.type, inner)))
    assert (x.value, x.value.severity, x.member) == (1.5, 1, "")
    members = {"n": "int32", "s": "string"}
    x = read(NTUnion(members).wrap(UnionValue("s", "text")))
    assert (x.value, x.member) == ("text", "s")
    assert read(NTUnion(members).wrap(None)).value is None


def test_channels() -> None:
    nt = NTMultiChannel(FieldDesc.union("", d="double", s="string"))
    value = nt.wrap(
        {"p": 1.5, "q": "x", "r": None},
        severities=[0, 1, 3],
        statuses=[0, 0, 2],
        messages=["", "low", "gone"],
        timestamps_ns=[1_700_000_000_000_000_001, 2, -1],
        user_tags=[1, 2, 3],
        connected=[True, True, False],
    )
    found = read(sent(value))
    assert found["r"] == normative.Channel(
        name="r",
        value=None,
        severity=3,
        status=2,
        message="gone",
        timestamp_ns=-1,
        user_tag=3,
        connected=False,
    )
    assert (found["p"].value, found["q"].value, found["q"].message) == (1.5, "x", "low")
    assert found.timestamps_ns.tolist() == [1_700_000_000_000_000_001, 2, -1]
    assert (len(found), "q" in found, list(found)) == (3, True, ["p", "q", "r"])
    with pytest.raises(EncodeError, match="1 elements for 3 channels at `severity`"):
        nt.wrap({"p": 1.5, "q": "x", "r": None}, severities=[1])
    numbers = read(sent(NTScalarMultiChannel("float").wrap({"p": 1.5, "q": 2.5})))
    assert numbers.value.tolist() == [1.5, 2.5]
    assert numbers["q"].value == 2.5
    assert type(numbers["q"].value) is float


def test_continuum_histogram_aggregate() -> None:
    x = read(sent(NTContinuum().wrap([1, 2], [[1, 2, 3], [4, 5, 6]], ["a", "b", "c", "Hz"])))
    assert (x.base.tolist(), x.value.tolist()) == ([1, 2], [[1, 2, 3], [4, 5, 6]])
    assert x.value_units == ("a", "b", "c", "Hz")
    with pytest.raises(EncodeError, match=r"values of shape \(3,\) for 2 points"):
        NTContinuum().wrap([1, 2], [1, 2, 3])

    counts, edges = np.histogram([1, 2, 2, 3], bins=3)
    x = read(sent(NTHistogram("int32").wrap(counts, edges)))
    assert (x.counts.tolist(), x.counts.dtype, x.ranges.tolist()) == ([1, 2, 1], np.int32, edges.tolist())
    with pytest.raises(EncodeError, match="3 edges for 1 bins"):
        NTHistogram().wrap([1], [1, 2, 3])

    x = read(sent(NTAggregate().wrap(2.5, 10, dispersion=0.5, first=1, first_timestamp=(7, 8), max=4, min=1)))
    assert (x, x.count, x.dispersion, x.first, x.first_timestamp_ns, x.max) == (
        2.5,
        10,
        0.5,
        1,
        7_000_000_008,
        4,
    )
    assert x.first_timestamp == pytest.approx(7.000000008)
    short = FieldDesc.structure("epics:nt/NTAggregate:1.0", value="double", N="int64")
    x = read(Value(short, {"value": 1, "N": 2}))
    assert (x.count, x.dispersion, x.last, x.last_timestamp_ns) == (2, None, None, 0)


# --- building ---------------------------------------------------------------------------------------------------------


def members(fd: FieldDesc) -> list[str]:
    return [f"{name}:{member.format('short')}" for name, member in fd.members.items()]


@pytest.mark.parametrize(
    ("options", "display", "control", "alarm"),
    [
        (
            {"style": "pvxs"},
            ["limitLow:int32", "limitHigh:int32", "description:string", "units:string"],
            ("", "int32"),
            ("", "int32", "double"),
        ),
        (
            {"style": "pvxs", "form": True},
            ["limitLow:int32", "limitHigh:int32", "description:string", "units:string", "precision:int32"],
            ("", "int32"),
            ("", "int32", "double"),
        ),
        (
            {"style": "p4p"},
            ["limitLow:int32", "limitHigh:int32", "description:string", "format:string", "units:string"],
            ("", "int32"),
            ("", "int32", "double"),
        ),
        (
            {"style": "p4p", "form": True},
            ["limitLow:int32", "limitHigh:int32", "description:string", "precision:int32", "units:string"],
            ("", "int32"),
            ("", "int32", "double"),
        ),
        (
            {"style": "qsrv"},
            ["limitLow:double", "limitHigh:double", "description:string", "units:string", "precision:int32"],
            ("control_t", "double"),
            ("valueAlarm_t", "double", "int8"),
        ),
        (
            {"style": "pvdata"},
            ["limitLow:double", "limitHigh:double", "description:string", "format:string", "units:string"],
            ("control_t", "double"),
            ("valueAlarm_t", "double", "int8"),
        ),
    ],
    ids=str,
)
def test_layouts(options: dict[str, Any], display: list[str], control: Any, alarm: Any) -> None:
    """As WIRE and the peers have them; `form` is left out of the comparison."""
    fd = NTScalar("int32", display=True, control=True, value_alarm=True, **options).type
    assert list(fd.members) == ["value", "alarm", "timeStamp", "display", "control", "valueAlarm"]
    assert [one for one in members(fd["display"]) if not one.startswith("form:")] == display
    has_form = options.get("form") or options["style"] == "qsrv"
    assert ("display.form" in fd) == bool(has_form)
    assert fd["display"].id == ("display_t" if options["style"] == "pvdata" else "")
    assert (fd["control"].id, fd["control.minStep"].format("short")) == control
    alarms = fd["valueAlarm"]
    assert (alarms.id, alarms["lowAlarmLimit"].format("short"), alarms["hysteresis"].format("short")) == alarm
    assert fd["timeStamp"].id == ("" if options["style"] == "qsrv" else "time_t")


def test_strings_have_no_limits() -> None:
    fd = NTScalar("string", display=True, control=True, value_alarm=True).type
    assert list(fd.members) == ["value", "alarm", "timeStamp", "display"]
    assert list(fd["display"].members) == ["description", "units"]


def test_types_of_the_recorded_sessions() -> None:
    """p4p's builders made these types."""
    updates = corpus.sessions()["bench_nts"].expected[0]["events"]
    spec = next(event["type"]["spec"] for event in updates if "type" in event)
    full = NTScalar("double", display=True, control=True, value_alarm=True, style="p4p")
    assert corpus.type_p4p(full.type) == spec
    types = {entry["pv"]: entry["type"]["spec"] for entry in corpus.sessions()["p4p_ntypes"].expected}
    assert corpus.type_p4p(NTEnum().type) == types["ntenum"]
    table = NTTable({"idx": "uint32", "name": "string", "val": "double", "ok": "bool"})
    assert corpus.type_p4p(table.type) == types["nttable"]
    assert corpus.type_p4p(NTURI({"lhs": "double", "rhs": "double", "name": "string"}).type) == types["nturi"]
    for entry in corpus.sessions()["p4p_ntsa"].expected:
        name = entry["pv"].partition(":")[2]
        assert corpus.type_p4p(NTScalarArray(name).type) == entry["type"]["spec"]


def test_extra_members_and_refused_types() -> None:
    fd = NTScalar("double", extra={"mode": "int32", "sub": {"x": "string"}}).type
    assert list(fd.members)[-2:] == ["mode", "sub"]
    assert NTScalar("double", descriptor=True).type.names[:3] == ("", "value", "descriptor")
    for wrong in ("any", "any[]", FieldDesc.structure("", x="int32")):
        with pytest.raises(EncodeError, match=r"NTScalar is of scalars"):
            NTScalar(wrong)


def test_wrap_marks_what_it_sets() -> None:
    nt = NTScalar("double", display=True, form=True, control=True, value_alarm=True)
    assert nt.wrap(1.5).changed_names() == ["value"]
    value = nt.wrap(
        1.5,
        severity=1,
        timestamp=(3, 4),
        units="mm",
        display={"precision": 3, "form": {"index": 1, "choices": ["a", "b"]}},
        control={"limitHigh": 10},
        value_alarm={"active": True},
    )
    assert value.changed_names() == [
        *("value", "alarm.severity", "timeStamp.secondsPastEpoch", "timeStamp.nanoseconds", "display.units"),
        *("display.precision", "display.form.index", "display.form.choices", "control.limitHigh"),
        "valueAlarm.active",
    ]
    assert nt.wrap({"value": 2, "alarm": {"severity": 3}}).to_dict()["alarm"]["severity"] == 3


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        (0, (0, 0)),
        (1700000000, (1700000000, 0)),
        (1.25, (1, 250_000_000)),
        (0.9999999999, (1, 0)),
        (-0.25, (-1, 750_000_000)),
        ((5, 999_999_999), (5, 999_999_999)),
        (np.float64(2.5), (2, 500_000_000)),
        (datetime(2023, 11, 14, 22, 13, 20, 250000, tzinfo=UTC), (1700000000, 250_000_000)),
        (np.datetime64("2023-11-14T22:13:20.123456789"), (1700000000, 123_456_789)),
        (np.datetime64("1969-12-31T23:59:59.5"), (-1, 500_000_000)),
    ],
)
def test_times(time: Any, stamp: tuple[int, int]) -> None:
    assert read(NTScalar("int32").wrap(1, timestamp=time)).raw_stamp == stamp


@pytest.mark.parametrize("time", [math.nan, math.inf, "now", True])
def test_times_that_are_none(time: Any) -> None:
    with pytest.raises(EncodeError, match="is no time"):
        NTScalar().wrap(1, timestamp=time)


def test_metadata_that_has_no_place() -> None:
    nt = NTScalar("double")
    with pytest.raises(EncodeError, match=r"NTScalar:1\.0 has no field `display.units`"):
        nt.wrap(1, units="mm")
    with pytest.raises(EncodeError, match=r"has no field `display\.limitMiddle`"):
        NTScalar(display=True).wrap(1, display={"limitMiddle": 1})
    with pytest.raises(TypeError, match="unexpected keyword argument 'severty'"):
        nt.wrap(1, severty=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="give one of them"):
        nt.wrap(1, timestamp=1, timestamp_ns=1)
    with pytest.raises(EncodeError, match="int32 cannot hold"):
        nt.wrap(1, severity=2**40)


def test_a_result_is_wrapped_with_its_alarm_and_time() -> None:
    x = read(NTScalar("double").wrap(1.5, **META))
    assert NTScalar("double").wrap(x) == x.raw
    again = read(NTScalar("int64").wrap(read(NTScalar("int32").wrap(7, **META)), severity=0))
    assert (again, again.severity, again.message, again.timestamp_ns) == (7, 0, "hot", META["timestamp_ns"])
    assert read(NTScalar("double").wrap(x, timestamp=1)).timestamp_ns == 10**9
    assert read(NTUnion().wrap(read(NTScalar("bool").wrap(True)))).value is True
    array = read(NTScalar("int16[]").wrap([1, 2], severity=1))
    assert read(NTUnion().wrap(array)).value.tolist() == [1, 2]
    assert type(read(NTUnion().wrap(array)).value) is np.ndarray


SCALARS = {
    "bool": st.booleans(),
    **{
        f"{sign}int{bits}": st.integers(
            0 if sign else -(1 << bits - 1), (1 << bits if sign else 1 << bits - 1) - 1
        )
        for bits in (8, 16, 32, 64)
        for sign in ("", "u")
    },
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(),
}


@st.composite
def typed(draw: st.DrawFn) -> tuple[str, Any]:
    name = draw(st.sampled_from(sorted(SCALARS)))
    one = SCALARS[name]
    return draw(st.one_of(st.tuples(st.just(name), one), st.tuples(st.just(f"{name}[]"), st.lists(one))))


@given(
    typed(),
    st.sampled_from(["pvxs", "p4p", "qsrv", "pvdata"]),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(10**18), 10**19 // 2),
)
def test_round_trips(pair: tuple[str, Any], style: Any, severity: int, ns: int) -> None:
    name, x = pair
    nt = NTScalar(name, style=style, display=True, control=True, value_alarm=True)
    found = read(sent(nt.wrap(x, severity=severity, timestamp_ns=ns)))
    assert (found.severity, found.timestamp_ns) == (severity, ns)
    if isinstance(found, np.ndarray):
        assert np.array_equal(found, np.array(x, found.dtype), equal_nan=found.dtype.kind == "f")
        assert found.dtype == nt.type["value"].dtype
    else:
        assert found == x or (found != found and x != x)


@given(st.sampled_from(sorted(normative.READERS)), st.data())
def test_any_structure_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever a peer sends under an id: a result, or NormativeError."""
    kinds = st.sampled_from(
        ["double", "string", "int32", "bool", "double[]", "int32[]", "string[]", "any", "any[]", "uint8[]"]
    )
    inner = st.dictionaries(
        st.sampled_from(["index", "choices", "a", "name", "size", "parameters"]), kinds, max_size=3
    )
    names = [
        *(
            "value",
            "alarm",
            "timeStamp",
            "labels",
            "dim",
            "name",
            "channelName",
            "base",
            "ranges",
            "N",
            "path",
            "query",
        ),
        *(
            "severity",
            "secondsPastEpoch",
            "nanoseconds",
            "codec",
            "dimension",
            "attribute",
            "tags",
            "units",
            "display",
        ),
    ]
    nested = inner.map(lambda fields: FieldDesc.structure("", fields))
    chosen = data.draw(
        st.dictionaries(
            st.sampled_from(names), st.one_of(kinds, nested, nested.map(FieldDesc.array)), max_size=8
        )
    )
    value = Value(FieldDesc.structure(f"epics:nt/{name}:1.0", chosen))
    for i, fd in enumerate(map(value.type.node, range(len(value.type)))):
        path = value.type.names[i]
        if fd.dtype is not None and fd.format("short").endswith("[]"):
            value[path] = np.arange(data.draw(st.integers(0, 3))).astype(fd.dtype)
        elif fd.format("short") == "string[]":
            value[path] = ["x"] * data.draw(st.integers(0, 3))
        elif fd.format("short") == "any":
            value[path] = data.draw(st.sampled_from([None, 1.5, "x"]))
        elif fd.element is not None and fd.element.is_structure:
            value[path] = [None, {}][: data.draw(st.integers(0, 2))]
    try:
        x = read(value)
    except NormativeError:
        return
    for attribute in (
        "severity",
        "timestamp_ns",
        "units",
        "description",
        "display",
        "control",
        "value_alarm",
    ):
        getattr(x, attribute)
    assert repr(x)


# --- peers ------------------------------------------------------------------------------------------------------------


@pytest.mark.interop
def test_the_types_that_p4p_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    # p4p loads setuptools, which does not get along with a distutils that is loaded already.
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    nt = pytest.importorskip("p4p.nt")
    codes = {name: spelling.letter for name, spelling in corpus.SCALARS.items()}
    flags = [
        (d, c, v, f)
        for d in (False, True)
        for c in (False, True)
        for v in (False, True)
        for f in (False, True)
    ]
    for name, letter in codes.items():
        for display, control, alarm, form in flags:
            for array in (False, True):
                theirs = nt.NTScalar.buildType(
                    "a" * array + letter, display=display, control=control, valueAlarm=alarm, form=form
                )
                ours = NTScalar(
                    name + "[]" * array,
                    display=display,
                    control=control,
                    value_alarm=alarm,
                    form=form,
                    style="p4p",
                ).type
                assert theirs.getID() == ours.id
                assert untuple(theirs.aspy()) == corpus.type_p4p(ours), (name, display, control, alarm, form)
    assert untuple(nt.NTEnum.buildType().aspy()) == corpus.type_p4p(NTEnum().type)
    assert untuple(nt.NTMultiChannel.buildType("av").aspy()) == corpus.type_p4p(NTMultiChannel().type)
    columns = [("a", "ai"), ("b", "as")]
    ours = NTTable({"a": "int32", "b": "string"}).type
    assert untuple(nt.NTTable.buildType(columns).aspy()) == corpus.type_p4p(ours)
    ours = NTURI({"a": "uint32"}).type
    assert untuple(nt.NTURI([("a", "I")]).type.aspy()) == corpus.type_p4p(ours)


def untuple(spec: Any) -> Any:
    return [untuple(one) for one in spec] if isinstance(spec, tuple | list) else spec
