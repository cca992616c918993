"""Makes messages.json: one hand-built case for each message, direction, subcommand and byte order (WIRE 3, 7, 8, 9).

The bytes are put together here from the layouts in WIRE with struct alone; nothing of pvafast takes part.
Run it as ``python tests/vectors/make_messages.py``; a test says when messages.json is not what it makes.

A case: id, source (section of WIRE), class, fields (all that differ from the defaults), from_server, byteorder,
bytes_hex (with header), ends: lengths below the whole at which the payload is legal too, canonical: encoding the
fields gives these bytes; type, put_type: of the operation, where the message needs them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Bytes = Callable[[str], bytes]  # "<" or ">" -> bytes


def number(form: str, x: float) -> Bytes:
    return lambda order: struct.pack(order + form, x)


def u8(x: int) -> Bytes:
    return number("B", x)


def u16(x: int) -> Bytes:
    return number("H", x)


def u32(x: int) -> Bytes:
    return number("I", x)


def i32(x: int) -> Bytes:
    return number("i", x)


def f64(x: float) -> Bytes:
    return number("d", x)


def raw(x: bytes) -> Bytes:
    return lambda order: x


def size(n: int) -> Bytes:
    return u8(n) if n < 254 else both(u8(254), u32(n))


def text(s: str) -> Bytes:
    return both(size(len(s.encode())), raw(s.encode()))


def both(*parts: Bytes) -> Bytes:
    return lambda order: b"".join(part(order) for part in parts)


def bits(little: str, big: str | None = None) -> Bytes:
    """A BitSet in hex, its Size included; from eight bytes on big-endian looks different."""
    return lambda order: bytes.fromhex(little if order == "<" or big is None else big)


NULL = u8(0xFF)
OK = u8(0xFF)


def status(type: int, message: str, stack: str = "") -> Bytes:
    return both(u8(type), text(message), text(stack))


def v4(a: int, b: int, c: int, d: int) -> Bytes:
    return raw(bytes(10) + b"\xff\xff" + bytes((a, b, c, d)))


ANY_V4 = v4(0, 0, 0, 0)
ZEROS = raw(bytes(16))
V6 = raw(bytes.fromhex("20010db8000000000000000000000001"))

# structure demo { double value; structure alarm_t { int32 severity; string message } alarm; double[] wave }
# bits: 0 the root, 1 value, 2 alarm, 3 alarm.severity, 4 alarm.message, 5 wave
DEMO_BYTES = both(
    *(u8(0x80), text("demo"), size(3)),
    *(text("value"), u8(0x43)),
    *(text("alarm"), u8(0x80), text("alarm_t"), size(2)),
    *(text("severity"), u8(0x22), text("message"), u8(0x60)),
    *(text("wave"), u8(0x4B)),
)
ALARM = {"struct": "alarm_t", "fields": [["severity", "int32"], ["message", "string"]]}
DEMO = {"struct": "demo", "fields": [["value", "float64"], ["alarm", ALARM], ["wave", "float64[]"]]}
# The type put of a PUT_GET: structure { string command }
PUT_BYTES = both(u8(0x80), text(""), size(1), text("command"), u8(0x60))
PUT = {"struct": "", "fields": [["command", "string"]]}

# pvRequest "field(value)record[queueSize=4]": structures without members, and one string at the end.
REQUEST_BYTES = both(
    *(u8(0x80), text(""), size(2)),
    *(text("field"), u8(0x80), text(""), size(1), text("value"), u8(0x80), text(""), size(0)),
    *(text("record"), u8(0x80), text(""), size(1), text("_options"), u8(0x80), text(""), size(1)),
    *(text("queueSize"), u8(0x60)),
    text("4"),
)
NOTHING = {"struct": "", "fields": []}
REQUEST = {
    "type": {
        "struct": "",
        "fields": [
            ["field", {"struct": "", "fields": [["value", NOTHING]]}],
            [
                "record",
                {"struct": "", "fields": [["_options", {"struct": "", "fields": [["queueSize", "string"]]}]]},
            ],
        ],
    },
    "value": {"field": {"value": {}}, "record": {"_options": {"queueSize": "4"}}},
}

# Updates: bits of the leaves, and the root bit with all data behind it.
LEAVES_BYTES = both(bits("011a"), f64(1.5), i32(-2), text("hot"))
LEAVES = {"changed": [1, 3, 4], "fields": {"value": 1.5, "alarm.severity": -2, "alarm.message": "hot"}}
ROOT_BYTES = both(bits("0101"), f64(-0.25), i32(3), text(""), size(2), f64(1.0), f64(2.5))
ROOT = {
    "changed": [0],
    "fields": {"": {"value": -0.25, "alarm": {"severity": 3, "message": ""}, "wave": [1.0, 2.5]}},
}
EMPTY_BYTES = bits("00")
EMPTY: dict[str, Any] = {"changed": [], "fields": {}}
COMMAND_BYTES = both(bits("0102"), text("go"))
COMMAND = {"changed": [1], "fields": {"command": "go"}}

FAILED_BYTES = status(2, "bad", "trace")
FAILED = {"type": "ERROR", "message": "bad", "stack": "trace"}
WARNED_BYTES = status(1, "hm")
WARNED = {"type": "WARNING", "message": "hm", "stack": ""}
GUID = bytes(range(1, 13))

CLIENT, SERVER = False, True
cases: list[dict[str, Any]] = []


def add(
    id: str,
    source: str,
    cls: str,
    from_server: bool,
    command: int,
    payload: Bytes,
    fields: dict[str, Any],
    *,
    ends: tuple[Bytes, ...] = (),
    **more: Any,
) -> None:
    """One case in both byte orders; `ends`: shorter payloads that are legal."""
    for byteorder, order in (("little", "<"), ("big", ">")):
        body = payload(order)
        flags = 0x40 * from_server | 0x80 * (byteorder == "big")
        header = struct.pack(order + "BBBBI", 0xCA, 2, flags, command, len(body))
        cases.append(
            {
                "id": f"{id}-{'server' if from_server else 'client'}-{byteorder}",
                "source": source,
                "class": cls,
                "from_server": from_server,
                "byteorder": byteorder,
                "bytes_hex": (header + body).hex(),
                "fields": fields,
                **({"ends": [len(end(order)) for end in ends]} if ends else {}),
                **more,
            }
        )


def add_control(
    id: str, cls: str, from_server: bool, command: int, value: int, fields: dict[str, Any] | None = None
) -> None:
    for byteorder, order in (("little", "<"), ("big", ">")):
        flags = 0x01 | 0x40 * from_server | 0x80 * (byteorder == "big")
        shown = {"value": value, **(fields or {})}
        if cls == "SetByteOrder":
            shown["byteorder"] = byteorder
        cases.append(
            {
                "id": f"{id}-{'server' if from_server else 'client'}-{byteorder}",
                "source": "WIRE 3",
                "class": cls,
                "from_server": from_server,
                "byteorder": byteorder,
                "bytes_hex": struct.pack(order + "BBBBI", 0xCA, 2, flags, command, value).hex(),
                "fields": shown,
            }
        )


def control_messages() -> None:
    for server in (CLIENT, SERVER):
        add_control("mark", "Mark", server, 0, 0x01020304)
        add_control("ack-mark", "AckMark", server, 1, 7)
        add_control("set-byte-order", "SetByteOrder", server, 2, 0)
        add_control("set-byte-order-ones", "SetByteOrder", server, 2, 0xFFFFFFFF)
        add_control("echo-request", "EchoRequest", server, 3, 0x0A0B0C0D)
        add_control("echo-response", "EchoResponse", server, 4, 0x0A0B0C0D)
        add_control("control-35", "UnknownControl", server, 35, 0x45678901, {"command": 35})


def discovery() -> None:
    w = "WIRE 7.1"
    start = both(raw(GUID), u8(0), u8(9), u16(513))
    fields = {"guid": GUID.hex(), "sequence": 9, "change_count": 513}
    add(
        *("beacon", w, "Beacon", SERVER, 0),
        both(start, ANY_V4, u16(5075), text("tcp"), NULL),
        {**fields, "port": 5075},
    )
    add(
        *("beacon-status", w, "Beacon", SERVER, 0),
        both(start, v4(10, 0, 0, 7), u16(6000), text("tls"), u8(0x22), i32(5)),
        {
            **fields,
            "address": "10.0.0.7",
            "port": 6000,
            "protocol": "tls",
            "server_status": {"type": "int32", "value": 5},
        },
    )
    w = "WIRE 7.2"
    names = both(u16(2), u32(258), text("one"), u32(0xFFFFFFFF), text("zw\u00f6"))
    add(
        *("search", w, "Search", CLIENT, 3),
        both(u32(0x66696E64), u8(0x81), raw(bytes(3)), ZEROS, u16(52813), size(1), text("tcp"), names),
        {
            "sequence": 0x66696E64,
            "flags": 0x81,
            "zeros": True,
            "port": 52813,
            "channels": [[258, "one"], [0xFFFFFFFF, "zw\u00f6"]],
        },
    )
    add(
        *("search-forwarded", w, "Search", CLIENT, 3),
        both(
            *(u32(1), u8(0), raw(bytes(3)), v4(127, 0, 0, 1), u16(258)),
            *(size(2), text("tls"), text("tcp"), u16(1), u32(7), text("a")),
        ),
        {
            "sequence": 1,
            "address": "127.0.0.1",
            "port": 258,
            "protocols": ["tls", "tcp"],
            "channels": [[7, "a"]],
        },
    )
    add(
        *("search-discovery", w, "Search", CLIENT, 3),
        both(u32(2), u8(1), raw(bytes(3)), ANY_V4, u16(0), size(0), u16(0)),
        {"sequence": 2, "flags": 1, "protocols": []},
    )
    w = "WIRE 7.3"
    add(
        *("search-response", w, "SearchResponse", SERVER, 4),
        both(raw(GUID), u32(258), ANY_V4, u16(5075), text("tcp"), u8(1), u16(2), u32(3), u32(0x01020304)),
        {"guid": GUID.hex(), "sequence": 258, "cids": [3, 0x01020304]},
    )
    add(
        *("search-response-none", w, "SearchResponse", SERVER, 4),
        both(raw(GUID), u32(2), V6, u16(258), text("tcp"), u8(0), u16(0)),
        {"guid": GUID.hex(), "sequence": 2, "address": "2001:db8::1", "port": 258, "found": False},
    )
    for server in (CLIENT, SERVER):
        add("origin-tag", "WIRE 7.4", "OriginTag", server, 22, v4(192, 168, 1, 2), {"address": "192.168.1.2"})
        add("origin-tag-any", "WIRE 7.4", "OriginTag", server, 22, ZEROS, {"zeros": True})


def connection() -> None:
    w = "WIRE 8"
    add(
        *("validation-request", w, "ConnectionValidationRequest", SERVER, 1),
        both(u32(0x4400), u16(0x7FFF), size(2), text("anonymous"), text("ca")),
        {"buffer_size": 0x4400},
    )
    add(
        *("validation-request-none", w, "ConnectionValidationRequest", SERVER, 1),
        both(u32(0x10000), u16(512), size(0)),
        {"registry_size": 512, "methods": []},
    )
    start = both(u32(0x10000), u16(0x7FFF), u16(0x0103))
    ca = both(u8(0x80), text(""), size(2), text("user"), u8(0x60), text("host"), u8(0x60))
    add(
        *("validation-response-ca", w, "ConnectionValidationResponse", CLIENT, 1),
        both(start, text("ca"), ca, text("me"), text("here")),
        {
            "qos": 0x0103,
            "method": "ca",
            "data": {
                "type": {"struct": "", "fields": [["user", "string"], ["host", "string"]]},
                "value": {"user": "me", "host": "here"},
            },
        },
        ends=(both(start, text("ca")),),
    )
    add(
        *("validation-response-anonymous", w, "ConnectionValidationResponse", CLIENT, 1),
        both(start, text("anonymous"), NULL),
        {"qos": 0x0103},
        ends=(both(start, text("anonymous")),),
    )
    add(
        *("validation-response-no-data", w, "ConnectionValidationResponse", CLIENT, 1),
        both(start, text("anonymous")),
        {"qos": 0x0103},
        canonical=False,
    )
    add("validated", w, "ConnectionValidated", SERVER, 9, OK, {})
    add("validated-failed", w, "ConnectionValidated", SERVER, 9, FAILED_BYTES, {"status": FAILED})
    for server in (CLIENT, SERVER):
        every = tuple(raw(bytes(n)) for n in range(4))
        add("echo", w, "Echo", server, 2, raw(b"ping"), {"payload": b"ping".hex()}, ends=every)
        add("echo-empty", w, "Echo", server, 2, raw(b""), {})
        add("authnz", w, "Authnz", server, 5, NULL, {})
        add(
            *("authnz-data", w, "Authnz", server, 5),
            both(u8(0x60), text("x")),
            {"data": {"type": "string", "value": "x"}},
        )
        add("destroy-channel", w, "DestroyChannel", server, 8, both(u32(3), u32(4)), {"sid": 3, "cid": 4})
        for severity, name in enumerate(("INFO", "WARNING", "ERROR", "FATAL")):
            add(
                *(f"message-{name.lower()}", w, "RemoteMessage", server, 18),
                both(u32(258), u8(severity), text("watch out")),
                {"ioid": 258, "severity": severity, "text": "watch out"},
            )
        add(
            *("message-severity-9", w, "RemoteMessage", server, 18),
            both(u32(258), u8(9), text("")),
            {"ioid": 258, "severity": 3},
            canonical=False,
        )
        every = tuple(raw(bytes(n)) for n in range(3))
        add(
            *("unknown", "WIRE 1", "Unknown", server, 99),
            raw(b"\x01\x02\x03"),
            {"command": 99, "payload": "010203"},
            ends=every,
        )
    add("acl-change", w, "AclChange", SERVER, 6, both(u32(258), u8(5)), {"cid": 258, "rights": 5})
    add(
        *("create", w, "CreateChannel", CLIENT, 7),
        both(u16(1), u32(258), text("pv:name")),
        {"channels": [[258, "pv:name"]]},
    )
    long = "x" * 600
    add(
        *("create-several", w, "CreateChannel", CLIENT, 7),
        both(u16(3), u32(1), text("a"), u32(2), text(""), u32(3), text(long)),
        {"channels": [[1, "a"], [2, ""], [3, long]]},
    )
    add(
        *("create-reply", w, "CreateChannelReply", SERVER, 7),
        both(u32(1), u32(258), OK),
        {"cid": 1, "sid": 258},
    )
    add(
        *("create-reply-refused", w, "CreateChannelReply", SERVER, 7),
        both(u32(1), u32(0xFFFFFFFF), status(3, "Refused to create Channel", "pvx:serv:refusechan:")),
        {
            "cid": 1,
            "status": {
                "type": "FATAL",
                "message": "Refused to create Channel",
                "stack": "pvx:serv:refusechan:",
            },
        },
    )


SID, IOID = 3, 258
ASK = {"sid": SID, "ioid": IOID}
TELL = {"ioid": IOID}


def ask(sub: int | None = None) -> Bytes:
    return both(u32(SID), u32(IOID), *(() if sub is None else (u8(sub),)))


def tell(sub: int | None = None) -> Bytes:
    return both(u32(IOID), *(() if sub is None else (u8(sub),)))


def request(
    name: str,
    command: int,
    cls: str,
    sub: int,
    *parts: Bytes,
    destroy: int | None = 0x10,
    type: Any = None,
    put_type: Any = None,
    **fields: Any,
) -> None:
    """A request, and where `destroy` says so the same with bit 10."""
    more = {key: spec for key, spec in (("type", type), ("put_type", put_type)) if spec is not None}
    add(name, "WIRE 9", cls, CLIENT, command, both(ask(sub), *parts), ASK | fields, **more)
    if destroy:
        fields = fields | {"destroy": True}
        payload = both(ask(sub | destroy), *parts)
        add(f"{name}-destroy", "WIRE 9", cls, CLIENT, command, payload, ASK | fields, **more)


def reply(
    name: str,
    command: int,
    cls: str,
    sub: int,
    *parts: Bytes,
    type: Any = None,
    put_type: Any = None,
    **fields: Any,
) -> None:
    """A reply that says OK, WARNING, ERROR; with bit 10 and without."""
    more = {key: spec for key, spec in (("type", type), ("put_type", put_type)) if spec is not None}
    w = "WIRE 9"
    done = both(tell(sub), OK, *parts)
    add(name, w, cls, SERVER, command, done, TELL | fields, **more)
    warned = both(tell(sub), WARNED_BYTES, *parts)
    add(f"{name}-warning", w, cls, SERVER, command, warned, TELL | {"status": WARNED} | fields, **more)
    failed = both(tell(sub), FAILED_BYTES)
    kept = {"bits": fields["bits"]} if "bits" in fields else {}
    add(f"{name}-error", w, cls, SERVER, command, failed, TELL | {"status": FAILED} | kept, **more)
    last = both(tell(sub | 0x10), OK, *parts)
    add(f"{name}-destroy", w, cls, SERVER, command, last, TELL | {"destroy": True} | fields, **more)


def init(name: str, command: int, cls: str, *types: Bytes, **fields: Any) -> None:
    """INIT: request and reply."""
    request(f"{name}-init", command, f"{cls}Init", 0x08, REQUEST_BYTES, request=REQUEST)
    null = {"type": None, "value": None}
    request(f"{name}-init-null", command, f"{cls}Init", 0x08, NULL, destroy=None, request=null)
    number = {"type": "int32", "value": 5}
    request(f"{name}-init-int", command, f"{cls}Init", 0x08, u8(0x22), i32(5), destroy=None, request=number)
    reply(f"{name}-init-reply", command, f"{cls}InitReply", 0x08, *types, **fields)


def operations() -> None:
    # GET
    init("get", 10, "Get", DEMO_BYTES, fields_type=DEMO)
    request("get", 10, "Get", 0x00)
    request("get-40", 10, "Get", 0x40, bits=0x40)
    reply("get-reply", 10, "GetReply", 0x00, LEAVES_BYTES, type=DEMO, value=LEAVES)
    reply("get-reply-root", 10, "GetReply", 0x00, ROOT_BYTES, type=DEMO, value=ROOT)
    reply("get-reply-unchanged", 10, "GetReply", 0x40, EMPTY_BYTES, type=DEMO, value=EMPTY, bits=0x40)
    scalar = {"changed": [0], "fields": {"": 7}}
    reply("get-reply-scalar", 10, "GetReply", 0x00, bits("0101"), i32(7), type="int32", value=scalar)
    # PUT
    init("put", 11, "Put", DEMO_BYTES, fields_type=DEMO)
    request("put", 11, "Put", 0x00, LEAVES_BYTES, type=DEMO, value=LEAVES)
    reply("put-reply", 11, "PutReply", 0x00)
    request("put-get-back", 11, "PutGetBack", 0x40)
    reply("put-get-back-reply", 11, "PutGetBackReply", 0x40, ROOT_BYTES, type=DEMO, value=ROOT)
    # PUT_GET
    init("put-get", 12, "PutGet", PUT_BYTES, DEMO_BYTES, fields_put_type=PUT, fields_get_type=DEMO)
    two = {"type": DEMO, "put_type": PUT}
    request("put-get", 12, "PutGet", 0x00, COMMAND_BYTES, value=COMMAND, **two)
    reply("put-get-reply", 12, "PutGetReply", 0x00, LEAVES_BYTES, value=LEAVES, **two)
    request("put-get-get-get", 12, "PutGetGetGet", 0x40)
    reply("put-get-get-get-reply", 12, "PutGetGetGetReply", 0x40, ROOT_BYTES, value=ROOT, **two)
    request("put-get-get-put", 12, "PutGetGetPut", 0x80)
    reply("put-get-get-put-reply", 12, "PutGetGetPutReply", 0x80, COMMAND_BYTES, value=COMMAND, **two)
    # PROCESS
    init("process", 16, "Process")
    request("process", 16, "Process", 0x00)
    reply("process-reply", 16, "ProcessReply", 0x00)
    # RPC
    init("rpc", 20, "Rpc")
    body = both(u8(0x80), text("arg"), size(1), text("x"), u8(0x23), number("q", -5))
    value = {"type": {"struct": "arg", "fields": [["x", "int64"]]}, "value": {"x": -5}}
    null = {"type": None, "value": None}
    string = {"type": "string", "value": "yes"}
    request("rpc", 20, "Rpc", 0x00, body, value=value)
    request("rpc-null", 20, "Rpc", 0x00, NULL, value=null)
    reply("rpc-reply", 20, "RpcReply", 0x00, body, value=value)
    reply("rpc-reply-null", 20, "RpcReply", 0x00, NULL)
    reply("rpc-reply-string", 20, "RpcReply", 0x00, u8(0x60), text("yes"), value=string)
    # GET_FIELD, DESTROY_REQUEST, CANCEL_REQUEST
    w = "WIRE 9"
    add("get-field", w, "GetField", CLIENT, 17, both(ask(), text("")), ASK)
    add("get-field-part", w, "GetField", CLIENT, 17, both(ask(), text("a.b")), ASK | {"field": "a.b"})
    add(
        "get-field-reply", w, "GetFieldReply", SERVER, 17, both(tell(), OK, DEMO_BYTES), TELL | {"type": DEMO}
    )
    scalar_type = both(tell(), OK, u8(0x43))
    add("get-field-reply-scalar", w, "GetFieldReply", SERVER, 17, scalar_type, TELL | {"type": "float64"})
    failed = both(tell(), FAILED_BYTES)
    add("get-field-reply-error", w, "GetFieldReply", SERVER, 17, failed, TELL | {"status": FAILED})
    add("destroy-request", w, "DestroyRequest", CLIENT, 15, ask(), ASK)
    add("cancel-request", w, "CancelRequest", CLIENT, 21, ask(), ASK)


def monitor() -> None:
    init("monitor", 13, "Monitor", DEMO_BYTES, fields_type=DEMO)
    request(
        "monitor-init-pipeline", 13, "MonitorInit", 0x88, REQUEST_BYTES, u32(258), request=REQUEST, nfree=258
    )
    request("monitor-start", 13, "MonitorStart", 0x44)
    request("monitor-stop", 13, "MonitorStop", 0x04)
    request("monitor-ack", 13, "MonitorAck", 0x80, u32(258), nfree=258)
    request("monitor-ack-start", 13, "MonitorAck", 0xC4, u32(1), destroy=None, nfree=1, bits=0x44)
    request("monitor-destroy", 13, "MonitorDestroy", 0x10, destroy=None)
    w = "WIRE 9"
    # A request without any bit, or with bit 40 alone, asks for nothing.
    for sub in (0x00, 0x40):
        add(
            *(f"monitor-nothing-{sub:02x}", w, "Unknown", CLIENT, 13),
            both(u32(0), u32(0), u8(sub)),
            {"command": 13, "payload": f"{0:016x}{sub:02x}"},
        )
    update = both(tell(0), LEAVES_BYTES, bits("00"))
    add("monitor-update", w, "MonitorUpdate", SERVER, 13, update, TELL | {"value": LEAVES}, type=DEMO)
    # Overrun {1, 63}: nine bits would do for the type, but the set is kept as it came.
    overrun = bits("080200000000000080", "088000000000000002")
    update = both(tell(0), ROOT_BYTES, overrun)
    fields = TELL | {"value": ROOT, "overrun": [1, 63]}
    add("monitor-update-overrun", w, "MonitorUpdate", SERVER, 13, update, fields, type=DEMO)
    update = both(tell(0), EMPTY_BYTES, bits("0102"))
    fields = TELL | {"value": EMPTY, "overrun": [1]}
    add("monitor-update-empty", w, "MonitorUpdate", SERVER, 13, update, fields, type=DEMO)
    # Bits 1, 3 and 4 below the bits of their structures, and bit 9 beyond the type: no bytes of their own.
    update = both(tell(0), bits("021f02"), f64(1.5), i32(-2), text("hot"), size(0), bits("00"))
    fields = TELL | {
        "value": {
            "changed": [0, 1, 2, 3, 4],
            "fields": {"": {"value": 1.5, "alarm": {"severity": -2, "message": "hot"}, "wave": []}},
        }
    }
    add(
        *("monitor-update-redundant", w, "MonitorUpdate", SERVER, 13, update, fields),
        type=DEMO,
        canonical=False,
    )
    final = both(tell(0x10), OK)
    add("monitor-final", w, "MonitorFinal", SERVER, 13, final, TELL)
    failed = both(tell(0x10), FAILED_BYTES)
    add("monitor-final-error", w, "MonitorFinal", SERVER, 13, failed, TELL | {"status": FAILED})
    last = both(final, LEAVES_BYTES, bits("0102"))
    fields = TELL | {"value": LEAVES, "overrun": [1]}
    add("monitor-final-value", w, "MonitorFinal", SERVER, 13, last, fields, type=DEMO, ends=(final,))
    for sub in (0x44, 0x04, 0x40, 0x54):
        fields = TELL | {"status": FAILED, "bits": sub & 0x44, "destroy": bool(sub & 0x10)}
        if fields["bits"] == 0x44:
            del fields["bits"]
        if not fields["destroy"]:
            del fields["destroy"]
        payload = both(tell(sub), FAILED_BYTES)
        add(f"monitor-error-{sub:02x}", w, "MonitorError", SERVER, 13, payload, fields)


def array() -> None:
    init("array", 14, "Array", u8(0x4B), fields_type="float64[]")
    values = both(size(2), f64(1.5), f64(-2.0))
    request(
        *("array-put", 14, "ArrayPut", 0x00, size(300), size(2), values),
        type="float64[]",
        offset=300,
        stride=2,
        value={"type": "float64[]", "value": [1.5, -2.0]},
    )
    request(
        *("array-put-fixed", 14, "ArrayPut", 0x00, size(0), size(1), i32(1), i32(2), i32(-3)),
        type="int32[3]",
        value={"type": "int32[3]", "value": [1, 2, -3]},
    )
    reply("array-put-reply", 14, "ArrayPutReply", 0x00)
    request("array-get", 14, "ArrayGet", 0x40, size(1), size(0), size(254), offset=1, stride=254)
    strings = both(size(2), text("a"), text(""))
    reply(
        *("array-get-reply", 14, "ArrayGetReply", 0x40, strings),
        type="string[]",
        value={"type": "string[]", "value": ["a", ""]},
    )
    request("array-set-length", 14, "ArraySetLength", 0x80, size(1000), length=1000)
    reply("array-set-length-reply", 14, "ArraySetLengthReply", 0x80)
    request("array-get-length", 14, "ArrayGetLength", 0x04)
    reply("array-get-length-reply", 14, "ArrayGetLengthReply", 0x04, size(1000), length=1000)


def multiple() -> None:
    w = "WIRE 9"
    add("multiple-none", w, "MultipleData", SERVER, 19, u32(0), {})
    replies = [
        {"class": "MonitorUpdate", **TELL, "value": EMPTY},
        {"class": "MonitorUpdate", **TELL, "value": LEAVES},
        {"class": "MonitorFinal", **TELL, "status": FAILED},
    ]
    payload = both(
        *(tell(0), EMPTY_BYTES, bits("00")),
        *(tell(0), LEAVES_BYTES, bits("00")),
        *(tell(0x10), FAILED_BYTES, u32(0)),
    )
    add("multiple", w, "MultipleData", SERVER, 19, payload, {"replies": replies}, type=DEMO, operation=13)


def make() -> str:
    """The text of messages.json."""
    cases.clear()
    for part in (control_messages, discovery, connection, operations, monitor, array, multiple):
        part()
    for case in cases:
        # A field of the message that has the name of the operation's type.
        fields = case["fields"]
        for name in [name for name in fields if name.startswith("fields_")]:
            fields[name.removeprefix("fields_")] = fields.pop(name)
    lines = ",\n".join(json.dumps(case, sort_keys=True) for case in cases)
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    (Path(__file__).parent / "messages.json").write_text(make())
