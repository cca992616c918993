"""pvRequest: the text that pvxs and pvDataCPP read, the structures they and others send, selections of a type."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvafast import AnyValue, BitSet, Codec, DecodeError, EncodeError, FieldDesc, Limits, Value, request
from pvafast.request import Request, select, text

NTSCALAR = FieldDesc.parse("""
epics:nt/NTScalar:1.0
    string value
    alarm_t alarm
        int severity
        int status
        string message
    time_t timeStamp
        long secondsPastEpoch
        int nanoseconds
        int userTag
""")


def wire(value: Value, ids: Any = "none") -> str:
    """Description and value as they are sent in an INIT, in hex."""
    codec = Codec(ids=ids)
    return (codec.encode_type(value.type) + codec.encode(value)).hex()


def received(hex: str) -> AnyValue | None:
    data = bytes.fromhex(hex)
    value, end = Codec().decode_any(data)
    assert end == len(data)
    return value


# What `epics::pvData::createRequest` of pvDataCPP 8.0.7 makes of a text, written by its own `serialize`.
PVDATA = [
    ("", "800000"),
    (" field()", "800001056669656c64800000"),
    ("field(value)", "800001056669656c648000010576616c7565800000"),
    ("value", "800001056669656c648000010576616c7565800000"),
    ("value,alarm", "800001056669656c648000020576616c756580000005616c61726d800000"),
    ("value.index", "800001056669656c648000010576616c756580000105696e646578800000"),
    (
        "field(value,alarm.severity)record[queueSize=10,pipeline=true]",
        "800002067265636f7264800001085f6f7074696f6e7380000209717565756553697a656008706970656c696e6560"
        "056669656c648000020576616c756580000005616c61726d8000010873657665726974798000000231300474727565",
    ),
    (
        "field(value[x=y],alarm{severity,status})",
        "800001056669656c648000020576616c7565800001085f6f7074696f6e7380000101786005616c61726d80000208"
        "7365766572697479800000067374617475738000000179",
    ),
    (
        "field(value[x=y,z=w],alarm[q=r]{severity,status[a=b]})",
        "800001056669656c648000020576616c7565800001085f6f7074696f6e73800002017860017a6005616c61726d80"
        "0003085f6f7074696f6e7380000101716008736576657269747980000006737461747573800001085f6f7074696f"
        "6e738000010161600179017701720162",
    ),
    (
        "putField(power.value)getField(power,alarm)",
        "800002086765744669656c6480000205706f77657280000005616c61726d800000087075744669656c6480000105"
        "706f7765728000010576616c7565800000",
    ),
    ("record[a=b=c]", "800001067265636f7264800001085f6f7074696f6e7380000101616003623d63"),
    ("record[x=50%]", "800001067265636f7264800001085f6f7074696f6e7380000101786003353025"),
    ("record[x=-1]", "800001067265636f7264800001085f6f7074696f6e73800001017860022d31"),
    ("record[]", "800000"),
    ("record[]field(value)", "800001056669656c648000010576616c7565800000"),
    (
        "value[array=1:3]",
        "800001056669656c648000010576616c7565800001085f6f7074696f6e738000010561727261796003313a33",
    ),
    (
        " field ( value ) record [ a = b ] ",
        "800002067265636f7264800001085f6f7074696f6e73800001016160056669656c648000010576616c75658000000162",
    ),
    (
        "field(a{b{c,d},e},f)",
        "800001056669656c64800002016180000201628000020163800000016480000001658000000166800000",
    ),
    (
        "field(a[x=y].c)",
        "800001056669656c648000010161800002085f6f7074696f6e738000010178600163800000" + "0179",
    ),
    (
        "getField(a)putField(b)record[process=true]field(c)",
        "800004067265636f7264800001085f6f7074696f6e738000010770726f6365737360056669656c64800001016380"
        "0000086765744669656c6480000101618000000870757446" + "69656c6480000101628000000474727565",
    ),
    ("field(field,record)", "800001056669656c64800002056669656c64800000067265636f7264800000"),
]

# What `pvxs::client::Context::request().pvRequest(text).build()` of pvxs 1.5.3 prints, on one line.
PVXS = [
    ("", "struct { struct {} field }"),
    ("field()", "struct { struct {} field }"),
    ("field(value)", "struct { struct { struct {} value } field }"),
    ("value", "struct { struct { struct {} value } field }"),
    ("value alarm", "struct { struct { struct {} value struct {} alarm } field }"),
    (
        "record[queueSize=10,pipeline=true]field(value,alarm.severity)",
        "struct { struct { struct {} value struct { struct {} severity } alarm } field"
        ' struct { struct { string pipeline = "true" string queueSize = "10" } _options } record }',
    ),
    ("field(a.b,a.c)", "struct { struct { struct { struct {} b struct {} c } a } field }"),
    (
        "field(a.b.c,a.d,e)",
        "struct { struct { struct { struct { struct {} c } b struct {} d } a struct {} e } field }",
    ),
    (
        "field(a,b,a.b)field(x)",
        "struct { struct { struct { struct {} b } a struct {} b struct {} x } field }",
    ),
    ("field(,)", "struct { struct {} field }"),
    ("field(foo,)", "struct { struct { struct {} foo } field }"),
    ("field(a b)", "struct { struct { struct {} a struct {} b } field }"),
    ("field(a,a)", "struct { struct { struct {} a } field }"),
    (
        "record[foo=bar,]",
        'struct { struct {} field struct { struct { string foo = "bar" } _options } record }',
    ),
    ("record[]", "struct { struct {} field }"),
    ("record[a.b=c]", 'struct { struct {} field struct { struct { string a.b = "c" } _options } record }'),
    ("record[a=1,a=2]", 'struct { struct {} field struct { struct { string a = "2" } _options } record }'),
    (
        "record[b=2]record[a=1]",
        'struct { struct {} field struct { struct { string a = "1" string b = "2" } _options } record }',
    ),
    ("field(value)foo", "struct { struct { struct {} value struct {} foo } field }"),
    ("record[]value", "struct { struct { struct {} value } field }"),
]

# Sent by p4p 4.3.0 (pvxs) for these texts.
P4P = [
    ("", "800001056669656c64800000"),
    (
        "record[process=true,queueSize=4]field(value,alarm.severity)",
        "800002056669656c648000020576616c756580000005616c61726d800001087365766572697479800000067265636f7264"
        "800001085f6f7074696f6e738000020770726f636573736009717565756553697a656004747275650134",
    ),
    (
        "field(value)record[queueSize=10,pipeline=true]",
        "800002056669656c648000010576616c7565800000067265636f7264800001085f6f7074696f6e73800002"
        "08706970656c696e656009717565756553697a65600474727565023130",
    ),
]


@pytest.mark.parametrize(("text", "hex"), PVDATA)
def test_as_pvdata_builds_it(text: str, hex: str) -> None:
    value = request.parse(text, order="pvaccess")
    assert wire(value) == hex
    assert request.parse(request.format(value), order="pvaccess") == value
    assert not value.changed


@pytest.mark.parametrize(("text", "shown"), PVXS)
def test_as_pvxs_builds_it(text: str, shown: str) -> None:
    value = request.parse(text)
    options = dict(re.findall(r'(\S+) = "(.*?)"', shown))
    plain = re.sub(r' = ".*?"', "", shown)
    assert value.type == FieldDesc.parse(plain)
    assert dict(Request.read(value).options) == options
    assert request.parse(request.format(value)) == value


@pytest.mark.parametrize(("text", "hex"), P4P)
def test_as_p4p_sends_it(text: str, hex: str) -> None:
    assert wire(request.parse(text)) == hex
    assert Request.read(received(hex)) == Request.parse(text or "field()")


def test_as_pvaccess_numbers_it() -> None:
    value = request.parse("field(value)", order="pvaccess")
    assert wire(value, "pvaccess") == "fd0100800001056669656c64fd02008000010576616c7565fd0300800000"


def test_quoted_names_and_values() -> None:
    text = 'field("a.b"."",é,"x y"["k=1"="a,b]\\"\\n"])record[q=" ",r="",s=,t=a="b"]'
    value = request.parse(text)
    assert value.type[("field", "a.b", "")] == FieldDesc.structure()
    assert value[("field", "x y", "_options", "k=1")] == 'a,b]"\n'
    read = Request.read(value)
    assert read.options == {"q": " ", "r": "", "s": "", "t": 'a="b"'}
    assert read.fields == ("a.b.", "é", "x y")
    assert read == Request.parse(str(read))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("field(value", "column 12: expected `,` or `)`, found the end"),
        ("field(", "column 7: expected a field name, found the end"),
        ("field(value))", "column 13: expected a field name, found `)`"),
        ("field", "column 6: expected `(` behind field, found the end"),
        ("field[value]", "column 12: expected `=`, found `]`"),
        ("record(a=b)", "column 7: expected `[` behind record, found `(`"),
        ("record", "column 7: expected `[` behind record, found the end"),
        ("record[", "column 8: expected an option, found the end"),
        ("record[key", "column 11: expected `=`, found the end"),
        ("record[key=", "column 12: expected `,` or `]`"),
        ("record[,]", "column 8: expected an option, found `,`"),
        ("record[a=b c]", "column 12: expected `,` or `]`"),
        ("record[a=[]", "column 10: expected `,` or `]`"),
        ("record[a=b][c=d]", "column 12: expected a field name, found `[`"),
        ("foo(value)", "column 4: expected `,`, found `(`"),
        ("field(!@#)", "column 7: expected a field name, found `!`"),
        ("field(*)", "column 7: expected a field name, found `*`"),
        ("field(a.)", "column 9: expected a field name, found `)`"),
        ("field(.a)", "column 7: expected a field name, found `.`"),
        ("field(a..b)", "column 9: expected a field name, found `.`"),
        ("field(a{})", "column 9: expected a field name, found `}`"),
        ("field(a{b}c)", "column 11: expected `,` or `)`, found `c`"),
        ("field(a{b)", "column 10: expected `,` or `}`, found `)`"),
        ("field(value[])", "column 13: expected an option, found `]`"),
        ("field(_options)", "column 7: _options is no field"),
        ('field("a)', "column 7: a string without its closing quote"),
        ('field("\\q")', "column 7: unknown escape `\\q`"),
        ('field("\\ud800")', "column 7: `\\ud800` is no character"),
    ],
)
def test_errors_say_where(text: str, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        request.parse(text)
    assert str(caught.value).startswith(f"pvRequest, {message}")
    assert isinstance(caught.value, ValueError)


def test_limits() -> None:
    request.parse(".".join("a" * 19))
    with pytest.raises(EncodeError, match=r"nested deeper than 20 \(Limits.depth\)"):
        request.parse(".".join("a" * 20))
    with pytest.raises(EncodeError, match=r"nested deeper than 20 \(Limits.depth\)"):
        request.parse(".".join("a" * 18) + "[x=y]")
    with pytest.raises(EncodeError, match=r"more than 16384 nodes \(Limits.type_nodes\)"):
        request.parse(",".join(f"a{i}" for i in range(16_384)))
    with pytest.raises(EncodeError, match=r"more than 4 nodes \(Limits.type_nodes\)"):
        request.parse("a,b,c", limits=Limits(type_nodes=4))


@pytest.mark.parametrize(
    "text",
    ["field(" * 200_000, "a{" * 200_000, "a." * 200_000, "a[x=" * 200_000, '"' + "\\" * 500_001, "a,b" * 200_000 + "!",
     "record[" + "a=b," * 200_000, " " * 500_000 + "(", "record[" + "a=b][" * 100_000, "field()" * 100_000 + "!"],
    ids=range(10),
)  # fmt: skip
def test_hostile_text_is_refused(text: str) -> None:
    # Anything but linear work would take minutes here.
    with pytest.raises(EncodeError):
        request.parse(text)


# Received requests.


def test_caproto_shape() -> None:
    # caproto:tests/test_pva.py, with type ids; options everywhere
    value = received(
        "fd0100800002067265636f7264fd0200800001085f6f7074696f6e73fd0300800002016160016360056669656c64fd0400"
        "8000020161fd05008000010161fd0600800002085f6f7074696f6e73fd07008000010161600143fd08008000010144fd0900"
        "800001085f6f7074696f6e73fe07000162fd0a008000010161fd0b00800003085f6f7074696f6e73fe07000145fd0c008000"
        "000146fe0c0001620164016201620162"
    )
    assert request.format(value) == "field(a.a[a=b].C.D[a=b],b.a[a=b]{E,F})record[a=b,c=d]"
    read = Request.read(value)
    assert read.fields == ("a.a.C.D", "b.a.E", "b.a.F")
    assert read.field_options == {"a.a": {"a": "b"}, "a.a.C.D": {"a": "b"}, "b.a": {"a": "b"}}
    assert value is not None
    assert read.to_value("pvaccess") == value.value


def test_empty_options_are_left_out() -> None:
    value = received("800002056669656c648000010576616c7565800000067265636f7264800001085f6f7074696f6e73800000")
    assert request.format(value) == "field(value)"


def test_options_of_any_scalar_type() -> None:
    options = FieldDesc.structure(
        "",
        {
            "b": "bool",
            "i": "int64",
            "d": "double",
            "w": "float64",
            "s": "string(8)",
            "a": "int32[]",
            "n": {"x": "uint8"},
        },
    )
    value = Value(FieldDesc.structure("any id", {"record": FieldDesc.structure("x", {"_options": options})}))
    given = {"b": True, "i": -5, "d": 0.5, "w": 4.0, "s": "hi", "a": [1]}
    for name, option in given.items():
        value[("record", "_options", name)] = option
    value["record._options.n.x"] = 7
    read = Request.read(value)
    assert read.options == {"b": "true", "i": "-5", "d": "0.5", "w": "4", "s": "hi", "n.x": "7"}
    assert Request.parse(str(read)) == read


def test_what_is_no_selection() -> None:
    assert Request.read(None) == Request.parse("")
    assert Request.read(None).fields == ()
    assert str(Request.read(None)) == ""
    odd = FieldDesc.structure(
        "", {"field": {"value": "string", "alarm": {}}, "record": "int32", "other": {"x": {}}}
    )
    assert Request.read(Value(odd)).fields == ("alarm",)
    assert Request.read(Value(FieldDesc.structure("", {"record": {"_options": "int32"}}))).options == {}
    with pytest.raises(DecodeError, match="pvRequest is int32, a structure is needed"):
        Request.read(AnyValue("int32", 5))
    with pytest.raises(DecodeError, match="pvRequest is int32"):
        Request.read(Value("int32", 5))
    with pytest.raises(DecodeError, match="string where a structure is needed at `field`"):
        Request.read(Value({"field": "string"}))
    with pytest.raises(TypeError, match="not int"):
        Request.read(5)


def test_options() -> None:
    read = Request.parse(
        "record[queueSize=10,pipeline=true,ackAny=50%,process=passive,block=TRUE,atomic=false,keepIDs=1]"
    )
    assert read.queue_size == 10
    assert read.pipeline is True
    assert (read.ack_any, read.ack_at(10), read.ack_at(1)) == ("50%", 5, 1)
    assert read.process is None
    assert read.block is True
    assert read.atomic is False
    assert read.keep_ids is True
    nothing = Request.parse("")
    assert (nothing.queue_size, nothing.pipeline, nothing.ack_any, nothing.process) == (
        None,
        False,
        None,
        None,
    )
    assert (nothing.block, nothing.atomic, nothing.keep_ids) == (False, None, False)
    assert Request.parse("record[process=true]").process is True
    assert Request.parse("record[process=false]").process is False


@pytest.mark.parametrize("size", ["0", "-1", "x", '""', "99999999999", "4.5", "٣", '"1 0"'])
def test_queue_size_that_is_none(size: str) -> None:
    assert Request.parse(f"record[queueSize={size}]").queue_size is None


@pytest.mark.parametrize(
    ("ack", "queue", "after"),
    [("", 4, 2), ("", 1, 1), ("3", 4, 3), ("9", 4, 4), ("0", 4, 2), ("25%", 8, 2), ("1%", 8, 1), ("100%", 8, 8),
     ("101%", 8, 4), ("x%", 8, 4), ("nan%", 8, 4), ("-5%", 8, 4), ("junk", 8, 4)],
)  # fmt: skip
def test_ack_at(ack: str, queue: int, after: int) -> None:
    assert Request.parse(f'record[ackAny="{ack}"]').ack_at(queue) == after


def test_request_is_frozen() -> None:
    read = Request.parse("field(value[x=y])putField(a)getField()record[a=b]")
    assert read.names("putField") == ("a",)
    assert read.names("getField") == ()
    assert read.node("getField") is not None
    assert Request.parse("").node("field") is None
    with pytest.raises(AttributeError, match="frozen"):
        read.options = {}  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del read.options
    with pytest.raises(TypeError):
        read.options["x"] = "y"  # type: ignore[index]
    assert pickle.loads(pickle.dumps(read)) == read == copy.deepcopy(read)
    assert repr(read) == "Request.parse('field(value[x=y])putField(a)getField()record[a=b]')"
    assert Request.parse("field(a[x=1,y=2])") == Request.parse("field(a[y=2,x=1])")
    assert hash(Request.parse("field(a[x=1,y=2])")) == hash(Request.parse("field(a[y=2,x=1])"))
    assert Request.parse("a,b") != Request.parse("b,a")
    assert Request.parse("") != Request.parse("field()")
    assert (read == 5) is False
    with pytest.raises(ValueError, match="order must be"):
        request.parse("", order="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order must be"):
        read.to_value("PVXS")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "field(alarm.severity,alarm.status)",
        "field(alarm{severity[x=y],status},value)",
        "field(a[x=y].b{c,d.e},f)",
        "field(a[x=y]{b{c,d},e})",
    ],
)
def test_braces_only_where_options_stand(text: str) -> None:
    assert str(Request.parse(text)) == text
    value = request.parse(text, order="pvaccess")
    assert request.format(value) == text


def test_options_of_the_whole() -> None:
    read = Request.parse("field[a=b](value)")
    assert read.field_options == {"": {"a": "b"}}
    assert str(read) == "field[a=b](value)"
    assert Request.read(read.to_value()) == read
    assert str(Request.parse("field[a=b]()")) == "field[a=b]()"


# Selections.


# The masks of pvxs's own test (testpvreq.cpp), on the same type.
@pytest.mark.parametrize(
    ("text", "mask", "missing"),
    [
        ("", range(9), ()),
        ("field()", range(9), ()),
        ("value", [0, 1], ()),
        ("timeStamp,alarm.status", [0, 2, 4, 6, 7, 8, 9], ()),
        ("timeStamp,nonexistent,alarm.status", [0, 2, 4, 6, 7, 8, 9], ("nonexistent",)),
        ("value.index", [0, 1], ("value.index",)),
        ("alarm.nope,value", [0, 1], ("alarm.nope",)),
        ("alarm[x=y]", [0, 2, 3, 4, 5], ()),
    ],
)
def test_mask(text: str, mask: Any, missing: tuple[str, ...]) -> None:
    selection = select(NTSCALAR, text)
    wanted = set(mask) if text not in ("", "field()") else set(range(10))
    assert set(selection.mask) == wanted
    assert selection.missing == missing
    assert selection.full == NTSCALAR


def test_sub_structure() -> None:
    selection = select(NTSCALAR, "timeStamp,alarm.status,value")
    assert selection.type.format("short") == (
        "struct{time_t{int64 secondsPastEpoch, int32 nanoseconds, int32 userTag} timeStamp, "
        "struct{int32 status} alarm, string value}"
    )
    keep = select(
        NTSCALAR, "timeStamp.userTag,alarm.status,record[keepIDs=true]".replace(",record", " record")
    )
    assert (
        keep.type.format("short")
        == "epics:nt/NTScalar:1.0{time_t{int32 userTag} timeStamp, alarm_t{int32 status} alarm}"
    )
    assert selection.names() == ("timeStamp", "alarm.status", "value")
    assert repr(selection) == "<Selection of timeStamp, alarm.status, value>"
    # full bits: 0 root, 1 value, 2 alarm, 3 severity, 4 status, 5 message, 6 timeStamp, 7 8 9
    # sub bits:  0 root, 1 timeStamp, 2 3 4, 5 alarm, 6 status, 7 value
    for full, sub in ([0, 0], [1, 7], [2, 5], [4, 6], [6, 1], [7, 2], [9, 4]):
        assert selection.to_sub_bits(BitSet([full])) == BitSet([sub])
    assert selection.to_sub_bits(BitSet([3, 5, 77])) == BitSet()
    assert selection.from_sub_bits(BitSet([0])) == BitSet([1, 4, 6])
    assert selection.from_sub_bits(BitSet([5])) == BitSet([4])
    assert selection.from_sub_bits(BitSet([1, 7, 99])) == BitSet([1, 6])


def test_values_both_ways() -> None:
    selection = select(NTSCALAR, "timeStamp,alarm.status,value")
    full = Value(NTSCALAR, {"value": "x", "alarm": {"severity": 1, "status": 2}, "timeStamp": {"userTag": 5}})
    full.unmark()
    full.mark("value", "alarm.severity", "timeStamp.userTag")
    sub = selection.to_sub(full)
    assert sub.type == selection.type
    assert sub.to_dict()["alarm"] == {"status": 2}
    assert (sub["value"], sub["timeStamp.userTag"]) == ("x", 5)
    assert sub.changed_names() == ["timeStamp.userTag", "value"]
    back = selection.from_sub(sub)
    assert back.type == NTSCALAR
    assert back["alarm.status"] == 2
    assert back["alarm.severity"] == 0  # is not in the selection
    assert back.changed_names() == ["value", "timeStamp.userTag"]
    sub.unmark()
    sub.mark("")
    assert set(selection.from_sub(sub).changed) == {1, 4, 6}
    full.unmark()
    full.mark("")
    assert selection.to_sub(full).changed == BitSet([0])
    masked = selection.masked(full)
    assert masked.type == NTSCALAR
    assert set(masked.changed) == {1, 4, 7, 8, 9}
    assert masked["value"] == "x"
    assert full.changed == BitSet([0])
    with pytest.raises(EncodeError, match="a Value of another type"):
        selection.to_sub(sub)
    with pytest.raises(EncodeError, match="a Value of another type"):
        selection.from_sub(full)
    with pytest.raises(EncodeError, match="a Value of another type"):
        selection.masked(sub)


def test_everything_is_no_work() -> None:
    full = Value(NTSCALAR, {"value": "x"})
    selection = select(NTSCALAR)
    assert selection.is_all
    assert selection.type is NTSCALAR
    assert selection.masked(full) is selection.to_sub(full) is selection.from_sub(full) is full
    assert repr(selection) == "<Selection of everything>"
    assert not select(NTSCALAR, "value,alarm,timeStamp").is_all
    with pytest.raises(AttributeError, match="frozen"):
        selection.mask = BitSet()  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del selection.mask


def test_arrays_are_shared() -> None:
    fd = FieldDesc.structure(
        "", {"image": "uint8[]", "n": "int32", "s": FieldDesc.structure("e", {"x": "int32"}).array()}
    )
    full = Value(fd, {"image": bytes(1000), "n": 1, "s": [{"x": 1}, None]})
    selection = select(fd, "s,image")
    assert selection.to_sub(full)["image"] is full["image"]
    assert selection.masked(full)["image"] is full["image"]
    assert selection.to_sub(full)["s"] == full["s"]
    assert selection.from_sub(selection.to_sub(full))["image"] is full["image"]


def test_parts_of_put_get() -> None:
    asked = Request.parse("putField(value)getField(alarm,timeStamp)")
    assert select(NTSCALAR, asked, "putField").names() == ("value",)
    assert select(NTSCALAR, asked, "getField").names() == ("alarm", "timeStamp")
    assert select(NTSCALAR, asked).is_all


def test_odd_names() -> None:
    fd = FieldDesc.structure("", {"a.b": "int32", "a": {"b": "string", "c": "int32"}, "": "double"})
    assert set(select(fd, 'field("a.b")').mask) == {0, 1}
    assert set(select(fd, "field(a.b)").mask) == {0, 2, 3}
    selection = select(fd, 'field("",a.b,"a.b")')
    full = Value(fd)
    full[("a.b",)] = 1
    full[("a", "b")] = "x"
    full[("",)] = 2.5
    sub = selection.to_sub(full)
    assert (sub[("a.b",)], sub[("a", "b")], sub[("",)]) == (1, "x", 2.5)
    assert selection.from_sub(sub) == full
    assert set(selection.from_sub(sub).changed) == set(full.changed)


@pytest.mark.parametrize(
    ("type", "text", "message"),
    [
        (NTSCALAR, "nope", "`epics:nt/NTScalar:1.0` has no `nope`"),
        (NTSCALAR, "alarm.nope", "`epics:nt/NTScalar:1.0` has no `alarm.nope`"),
        (FieldDesc.structure("", {"x": "int32"}), "a,b", "the structure has no `a`, `b`"),
        (FieldDesc.of("double[]"), "value", "double[] has no `value`"),
        (NTSCALAR, ",".join(f"x{i}" for i in range(9)), "`x7`, ..."),
    ],
)
def test_nothing_selected(type: FieldDesc, text: str, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        select(type, text)
    assert str(caught.value).startswith("pvRequest must select at least one field: ")
    assert str(caught.value).endswith(message)


def test_types_that_are_no_structure() -> None:
    selection = select(FieldDesc.of("double[]"), "field()record[queueSize=2]")
    assert selection.is_all
    assert set(selection.mask) == {0}
    value = Value("double[]", [1, 2])
    assert selection.masked(value) is selection.to_sub(value) is value


# Properties.

names = st.sampled_from(
    ["a", "b", "c", "value", "in-valid", "a.b", "", "é", 'x "y"', "field", "record", "\udcff", "*"]
)
texts = st.text(max_size=5) | st.sampled_from(["true", "4", "50%", 'a"b', "[", ",", "]", "a b", "\\"])
options = st.dictionaries(names.filter(lambda name: name != ""), texts, max_size=3)


def as_node(parts: tuple[dict[str, str], dict[str, text.Node]]) -> text.Node:
    return text.Node(tuple(parts[0].items()), tuple(parts[1].items()))


nodes = st.recursive(
    options.map(lambda found: as_node((found, {}))),
    lambda inner: st.tuples(options, st.dictionaries(names, inner, max_size=3)).map(as_node),
    max_leaves=8,
)
requests = st.builds(Request, st.dictionaries(st.sampled_from(text.PARTS), nodes), options)


@given(requests)
def test_round_trip_of_text(asked: Request) -> None:
    assert Request.parse(str(asked)) == asked


@given(requests, st.sampled_from(["pvxs", "pvaccess"]))
def test_round_trip_of_structure(asked: Request, order: Any) -> None:
    value = asked.to_value(order)
    read = Request.read(value)
    if order == "pvxs" and not any(map(asked.node, text.PARTS)):
        asked = Request.parse("field()" + str(asked))  # pvxs always names the fields
    assert read == asked
    assert Request.read(received(wire(value))) == read
    assert request.parse(request.format(value), order=order) == value


def types(depth: int) -> st.SearchStrategy[FieldDesc]:
    leaf = st.sampled_from(["int32", "double[]", "string", "any"]).map(FieldDesc.of)
    if not depth:
        return leaf
    return leaf | structures(depth)


def structures(depth: int) -> st.SearchStrategy[FieldDesc]:
    members = st.dictionaries(st.sampled_from("abcd"), types(depth - 1), max_size=4)
    return members.map(lambda found: FieldDesc.structure("id", found))


@st.composite
def wanted(draw: st.DrawFn, depth: int) -> str:
    chosen = draw(st.lists(st.sampled_from("abcdz"), min_size=1, max_size=3, unique=True))
    return ",".join(
        name + ("{" + draw(wanted(depth - 1)) + "}" if depth and draw(st.booleans()) else "")
        for name in chosen
    )


@given(structures(3), wanted(2), st.data())
def test_selection_properties(fd: FieldDesc, text: str, data: st.DataObject) -> None:
    try:
        selection = select(fd, text)
    except EncodeError:
        return
    leaves = set(BitSet([0]).expand(fd))
    value = Value(fd)
    for bit in leaves:
        if fd.node(bit) == FieldDesc.of("int32"):
            value[fd.names[bit]] = bit
    value.unmark()
    changed = BitSet(data.draw(st.sets(st.integers(0, len(fd) - 1))))
    if changed:
        value.mark(*(fd.names[bit] for bit in changed))
    selected = leaves & set(selection.mask)
    assert len(BitSet([0]).expand(selection.type)) == len(selected)
    carried = set(changed.expand(fd)) & selected
    masked = selection.masked(value)
    assert set(masked.changed.expand(fd)) == carried
    sub = selection.to_sub(value)
    assert sub.type == selection.type
    assert {fd.index(name) for name in sub.changed_names()} == carried
    back = selection.from_sub(sub)
    assert set(back.changed.expand(fd)) == carried
    for bit in selected:
        name = fd.names[bit]
        if name:
            assert back[name] is value[name] or back[name] == value[name] or len(back[name]) == 0
    # A structure is in the mask exactly if something of it is selected, or it is selected itself.
    for bit in range(1, len(fd)):
        if not fd.is_leaf(bit) and fd.end(bit) > bit + 1 and bit in selection.mask:
            assert any(inner in selection.mask for inner in range(bit + 1, fd.end(bit)))


@given(st.text(' \n"\\{}[]()<>.,=ab0éfield(record[putField(', max_size=60))
def test_any_text_gives_only_the_documented_error(text: str) -> None:
    with contextlib.suppress(EncodeError):
        asked = Request.parse(text)
        assert Request.parse(str(asked)) == asked
