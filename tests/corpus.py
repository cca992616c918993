"""Recorded sessions of real peers, and what each peer's own client made of them (see data/sessions/README.md)."""

from __future__ import annotations

import ast
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pvafast import AnyValue, FieldDesc, UnionValue, Value

ARCHIVE = Path(__file__).parent / "data" / "sessions" / "sessions.tar.xz"


@dataclass(frozen=True)
class Talk:
    """One recorded TCP connection: the two streams, and the pieces in which they were read, as (sender, bytes)."""

    streams: Mapping[str, bytes]
    chunks: Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Session:
    name: str
    files: Mapping[str, bytes]

    def json(self, name: str) -> Any:
        return json.loads(self.files[name]) if name in self.files else None

    @cached_property
    def meta(self) -> dict[str, Any]:
        return self.json("meta.json") or {}

    @cached_property
    def expected(self) -> list[dict[str, Any]]:
        return self.json("expected.json") or []

    @cached_property
    def client(self) -> str:
        """p4p, pvapy, spvirit, caproto, pvxs (its tools) or pvxlist."""
        return self._peer("client")

    @cached_property
    def server(self) -> str:
        return self._peer("server")

    def _peer(self, role: str) -> str:
        found: str = (self.meta or self.json("datagrams.json"))[role]
        return found.split()[0]

    @property
    def values_recorded(self) -> bool:
        """tcpsearch_*: the values came over another connection, of which there is no recording."""
        return not self.name.startswith("tcpsearch")

    @cached_property
    def talks(self) -> list[Talk]:
        """The connections whose streams were recorded, in the order in which they began."""
        return [self._talk(c) for c in sorted(self.meta.get("connections", ()), key=lambda c: c["t0"])]

    def _talk(self, connection: dict[str, Any]) -> Talk:
        streams = {name[0]: self.files[name] for name in connection["files"]}
        at = dict.fromkeys(streams, 0)
        chunks = []
        for _, direction, size in connection["chunks"]:
            side = direction[0]
            if size:
                chunks.append((ROLES[side], streams[side][at[side] : at[side] + size]))
                at[side] += size
        assert all(at[side] == len(stream) for side, stream in streams.items())
        return Talk({ROLES[side]: stream for side, stream in streams.items()}, chunks)

    def __repr__(self) -> str:
        return self.name


ROLES = {"c": "client", "s": "server"}


@cache
def sessions() -> dict[str, Session]:
    """All sessions, by name."""
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.isfile():
                folder, name = member.name.split("/")
                content = archive.extractfile(member)
                assert content is not None
                files.setdefault(folder, {})[name] = content.read()
    return {name: Session(name, found) for name, found in sorted(files.items())}


# -- what expected.json says, compared with what was decoded


class Mismatch(AssertionError):
    pass


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def compare(expected: Any, got: Any, path: str = "") -> None:
    """`got`, in a form_* below, is what `expected`, of expected.json, says; Mismatch if not."""

    def need(condition: bool, what: str = "") -> None:
        if not condition:
            raise Mismatch(f"{path}: {what or f'{str(expected)[:300]} expected'}, {str(got)[:300]} decoded")

    if isinstance(got, dict):
        need(isinstance(expected, dict))
        need(list(expected) == list(got), f"fields {list(expected)} expected")
        for name in expected:
            compare(expected[name], got[name], f"{path}.{name}")
    elif isinstance(expected, dict):
        kinds = set(expected)
        if kinds == {"array"}:
            form = expected["array"]
            need(isinstance(got, np.ndarray))
            # Booleans are bytes to pvapy, where form_pvapy has made them so.
            need(got.dtype == np.dtype(form["dtype"]), f"dtype {form['dtype']} expected")
            need(list(got.shape) == form["shape"], f"shape {form['shape']} expected")
            if "sha256" in form:
                need(digest(got) == form["sha256"], "another digest expected")
            else:
                compare(form["data"], got.tolist(), path)
        elif kinds == {"list_as_array"}:
            form = expected["list_as_array"]
            array = np.asarray(got).astype(form["dtype"])
            need([len(got)] == form["shape"])
            need(np.array_equal(array, np.asarray(got), equal_nan=array.dtype.kind == "f"))
            need(digest(array) == form["sha256"], "another digest expected")
        elif kinds == {"str_utf8_len", "sha256"}:
            data = got.encode()
            need(len(data) == expected["str_utf8_len"])
            need(hashlib.sha256(data).hexdigest() == expected["sha256"], "another digest expected")
        elif kinds == {"strings"}:
            hashed = hashlib.sha256()
            for item in got:
                data = item.encode()
                hashed.update(len(data).to_bytes(4, "little") + data)
            form = expected["strings"]
            need(len(got) == form["n"])
            need(
                hashed.hexdigest() in (form.get("sha256"), form.get("sha256_of_u32le_len_prefixed_utf8")),
                "another digest expected",
            )
        elif kinds == {"float"}:
            need(isinstance(got, float) and repr(got) == expected["float"])
        elif kinds == {"repr"}:
            # array('f', [1.0, 2.0])
            call = ast.parse(expected["repr"], mode="eval").body
            assert isinstance(call, ast.Call)
            code, *items = map(ast.literal_eval, call.args)
            array = np.array(items[0] if items else [], code)
            need(isinstance(got, np.ndarray) and got.dtype == array.dtype and np.array_equal(got, array))
        else:
            need(False)
    elif isinstance(expected, list):
        items = list(got.tolist() if isinstance(got, np.ndarray) else got)
        need(len(items) == len(expected))
        for i, (one, other) in enumerate(zip(expected, items, strict=True)):
            compare(one, other, f"{path}[{i}]")
    else:
        need(type(expected) is type(got) and expected == got)


def members(value: Value) -> Iterator[tuple[str, FieldDesc, Any]]:
    """The members of a structure: name, type, value."""
    for name, type in value.type.members.items():
        yield name, type, value[(name,)]


# The names of the leaves that ever came, dotted; None: all of them.
Came = Set[str] | None


def below(came: Came, name: str) -> Came:
    """`came` as seen from the member `name`."""
    if came is None:
        return None
    if name in came:
        return None
    return {path[len(name) + 1 :] for path in came if path.startswith(name + ".")}


def form_p4p(value: Any, came: Came = None) -> Any:
    """p4p: structures with their ids, unions and anys without member and type, None for arrays of numbers that never came."""
    if isinstance(value, Value):
        fields = {name: form_p4p(x, below(came, name)) for name, _, x in members(value)}
        return {"id": value.type.id or "structure", "fields": fields}
    if isinstance(value, UnionValue | AnyValue):
        return form_p4p(value.value)
    if isinstance(value, np.ndarray):
        return value if came is None else None
    return [form_p4p(x) for x in value] if isinstance(value, list) else value


def form_caproto(value: Any, type: FieldDesc, came: Came = None) -> Any:
    """caproto: dicts; booleans that came are numbers; a union shows all its members, None for those not chosen."""
    if isinstance(value, Value):
        return {name: form_caproto(x, member, below(came, name)) for name, member, x in members(value)}
    if type.code == UNION:
        chosen = dict.fromkeys(type.members)
        if value is not None:
            chosen[value.name] = form_caproto(value.value, type.members[value.name])
        elif came is not None:
            # What caproto's own default of a union is.
            chosen["i"] = 0
        return chosen
    if isinstance(value, AnyValue):
        return form_caproto(value.value, value.type)
    if isinstance(value, bool):
        return int(value) if came is None else value
    if isinstance(value, np.ndarray):
        return value.view(np.uint8) if value.dtype == np.bool_ else value
    if isinstance(value, list):
        return [form_caproto(x, type.element) for x in value]
    return value


def form_spvirit(value: Any, came: Came = None) -> Any:
    """spvirit: dicts of the fields that came; unions {member: value}; a null structure is {}."""
    if isinstance(value, Value):
        return {
            name: form_spvirit(x, below(came, name))
            for name, _, x in members(value)
            if came is None or below(came, name) != set()
        }
    if isinstance(value, UnionValue):
        return {value.name: form_spvirit(value.value)}
    if isinstance(value, AnyValue):
        return form_spvirit(value.value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [{} if x is None else form_spvirit(x) for x in value]
    return value


def form_pvapy(value: Any, type: FieldDesc) -> Any:
    """pvapy: dicts; a union or any is [{member: value}, {member: type}], where a type is its number."""
    if isinstance(value, Value):
        return {name: form_pvapy(x, member) for name, member, x in members(value)}
    if isinstance(value, UnionValue):
        member = type.members[value.name]
        return [{value.name: form_pvapy(value.value, member)}, {value.name: number_pvapy(member)}]
    if isinstance(value, AnyValue):
        return [{"value": form_pvapy(value.value, value.type)}, {"value": number_pvapy(value.type)}]
    if value is None and type.code in (UNION, ANY):
        return [{}, {}]
    if isinstance(value, np.ndarray):
        return value.view(np.int8) if value.dtype == np.bool_ else value
    if type.code == INT8:
        return chr(value & 0xFF)
    if isinstance(value, list):
        return [form_pvapy(x, type.element) for x in value]
    return value


INT8, UNION, ANY, STRING_ARRAY = 0x20, 0x81, 0x82, 0x68
ARRAYS = {0x88: "struct[]", 0x89: "union[]", 0x8A: "any[]"}


@dataclass(frozen=True)
class Spelling:
    letter: str  # p4p
    number: int  # pvapy
    name: str  # pvapy
    pvdata: str
    pvxs: str


SCALARS = {
    "bool": Spelling("?", 0, "BOOLEAN", "boolean", "bool"),
    "int8": Spelling("b", 1, "BYTE", "byte", "int8_t"),
    "int16": Spelling("h", 2, "SHORT", "short", "int16_t"),
    "int32": Spelling("i", 3, "INT", "int", "int32_t"),
    "int64": Spelling("l", 4, "LONG", "long", "int64_t"),
    "uint8": Spelling("B", 5, "UBYTE", "ubyte", "uint8_t"),
    "uint16": Spelling("H", 6, "USHORT", "ushort", "uint16_t"),
    "uint32": Spelling("I", 7, "UINT", "uint", "uint32_t"),
    "uint64": Spelling("L", 8, "ULONG", "ulong", "uint64_t"),
    "float": Spelling("f", 9, "FLOAT", "float", "float"),
    "double": Spelling("d", 10, "DOUBLE", "double", "double"),
    "string": Spelling("s", 11, "STRING", "string", "string"),
}


def number_pvapy(type: FieldDesc) -> Any:
    """The type of an any or a union member as pvapy tells it."""
    if type.is_structure:
        return {name: number_pvapy(member) for name, member in type.members.items()}
    if type.element is not None:
        return [number_pvapy(type.element)]
    return SCALARS[type.format("short")].number


def type_pvapy(type: FieldDesc) -> str:
    """The type as the text of pvapy's dict."""
    scalar = SCALARS.get(type.format("short"))
    if scalar is not None:
        return f"pvaccess.pvaccess.ScalarType.{scalar.name}"
    if type.element is not None:
        return f"[{type_pvapy(type.element)}]"
    inside = ", ".join(f"{name!r}: {type_pvapy(member)}" for name, member in type.members.items())
    if type.is_structure:
        return f"{{{inside}}}"
    return f"({{{inside}}},)" if inside else "()"


def intro_pvapy(type: FieldDesc) -> dict[str, str]:
    """The type as pvapy's getIntrospectionDict tells it."""
    return {
        name: type_pvapy(member).removeprefix("pvaccess.pvaccess.ScalarType.")
        for name, member in type.members.items()
    }


def type_p4p(type: FieldDesc) -> Any:
    """p4p's letters."""
    one, prefix = (type, "") if type.element is None else (type.element, "a")
    scalar = SCALARS.get(one.format("short"))
    if scalar is not None or one.code == ANY:
        return prefix + (scalar.letter if scalar is not None else "v")
    inside = [[name, type_p4p(member)] for name, member in one.members.items()]
    return [prefix + ("S" if one.is_structure else "U"), one.id or "structure", inside]


RUST = {
    "bool": "Boolean", "int8": "Int8", "int16": "Int16", "int32": "Int32", "int64": "Int64", "uint8": "UInt8",
    "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64", "float": "Float32", "double": "Float64",
}  # fmt: skip


def dump_spvirit(type: FieldDesc) -> str:
    """The type of a structure as spvirit's Python object prints it."""
    fields = [{"name": name, "field_type": _rust(member)} for name, member in type.members.items()]
    return str({"struct_id": type.id, "fields": fields})


def _rust(type: FieldDesc) -> str:
    one, suffix = (type, "") if type.element is None else (type.element, "Array")
    code = one.format("short")
    if code == "string":
        return f"String{suffix}"
    if code in RUST:
        return f"Scalar{suffix}({RUST[code]})"
    if one.code == ANY:
        return f"Variant{suffix}"
    fields = ", ".join(
        f'FieldDesc {{ name: "{name}", field_type: {_rust(member)} }}' for name, member in one.members.items()
    )
    if not one.is_structure:
        return f"Union{suffix}([{fields}])"
    id = f'Some("{one.id}")' if one.id else "None"
    return f"Structure{suffix}(StructureDesc {{ struct_id: {id}, fields: [{fields}] }})"


# -- the peers' own dumps: they tell chosen members and the types in anys


def ostream(x: Any) -> str:
    """A scalar as a C++ stream writes it."""
    if isinstance(x, bool):
        return "true" if x else "false"
    return f"{x:g}" if isinstance(x, float) else str(x)


class PvxsDump:
    """pvxs's tree of a value; of arrays that never came it does not know the size."""

    def __init__(self, value: Value, came: Came) -> None:
        self.lines: list[str] = []
        self.add(value.type, value, "", 0, came)

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"

    def add(self, type: FieldDesc, x: Any, name: str, depth: int, came: Came) -> None:
        pad, label = "    " * depth, name and f" {name}"
        put = self.lines.append
        if type.is_structure:
            head = f'{pad}struct "{type.id}"' if type.id else f"{pad}struct"
            if not type.members:
                put(f"{head} {{}}{label}")
                return
            put(f"{head} {{")
            for member, inner, y in members(x):
                self.add(inner, y, member, depth + 1, below(came, member))
            put(f"{pad}}}{label}")
        elif type.code in (UNION, ANY):
            head = "any" if type.code == ANY else f'union "{type.id}"' if type.id else "union"
            self.choice(type, x, f"{pad}{head}{label}", depth, named=True)
        elif type.code in ARRAYS:
            if not len(x):
                put(f"{pad}{ARRAYS[type.code]}{label} = {{0}}[]")
                return
            put(f"{pad}{ARRAYS[type.code]}{label} = {{{len(x)}}}[")
            for y in x:
                if y is None:
                    put(f"{pad}    null")
                elif isinstance(y, Value):
                    self.add(y.type, y, "", depth + 1, None)
                else:
                    self.choice(type.element, y, f"{pad}   ", depth + 1, named=False)
            put(f"{pad}]")
        elif type.element is not None:
            size = "?" if came is not None else len(x)
            items = x.tolist() if isinstance(x, np.ndarray) else x
            shown = ", ".join(self.scalar(int(y) if isinstance(y, bool) else y) for y in items)
            put(f"{pad}{SCALARS[type.element.format('short')].pvxs}[]{label} = {{{size}}}[{shown}]")
        else:
            put(f"{pad}{SCALARS[type.format('short')].pvxs}{label} = {self.scalar(x)}")

    def choice(self, type: FieldDesc, x: Any, head: str, depth: int, *, named: bool) -> None:
        if x is None:
            self.lines.append(f"{head} null")
            return
        at = len(self.lines)
        self.add(x.type if isinstance(x, AnyValue) else type.members[x.name], x.value, "", depth, None)
        selected = f".{x.name}" if named and isinstance(x, UnionValue) else ""
        self.lines[at] = f"{head}{selected} {self.lines[at].lstrip()}"

    @staticmethod
    def scalar(x: Any) -> str:
        if not isinstance(x, str):
            return ostream(x)
        escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        shown = (
            escapes.get(chr(byte)) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}")
            for byte in x.encode()
        )
        return f'"{"".join(shown)}"'


class PvDataDump:
    """pvDataCPP's tree of a value."""

    def __init__(self, value: Value) -> None:
        self.lines: list[str] = []
        self.add(value.type, value, "", 0)

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"

    def add(self, type: FieldDesc, x: Any, name: str, depth: int) -> None:
        pad = "    " * depth
        put = self.lines.append
        if x is None and type.code not in (UNION, ANY):
            put(f"{pad}(none)")
        elif type.is_structure:
            put(f"{pad}{type.id or 'structure'} {name}")
            for member, inner, y in members(x):
                self.add(inner, y, member, depth + 1)
        elif type.code in (UNION, ANY):
            put(f"{pad}{'any' if type.code == ANY else type.id or 'union'} {name}")
            if x is None:
                put(f"{pad}    (none)")
            else:
                inner = x.type if isinstance(x, AnyValue) else type.members[x.name]
                self.add(inner, x.value, "", depth + 1)
        elif type.code in ARRAYS:
            one = type.element
            kind = "any" if one.code == ANY else one.id or ("structure" if one.is_structure else "union")
            put(f"{pad}{kind}[] {name}")
            for y in x:
                self.add(one, y, "", depth + 1)
        elif type.element is not None:
            items = x.tolist() if isinstance(x, np.ndarray) else x
            shown = (", " if type.code == STRING_ARRAY else ",").join(self.scalar(y) for y in items)
            put(f"{pad}{SCALARS[type.element.format('short')].pvdata}[] {name} [{shown}]")
        else:
            put(f"{pad}{SCALARS[type.format('short')].pvdata} {name} {self.scalar(x)}")

    @staticmethod
    def scalar(x: Any) -> str:
        if not isinstance(x, str):
            return ostream(x)
        data = x.encode()
        if all(33 <= byte < 127 and byte not in b"\"'\\" for byte in data):
            return x
        # It writes the digit 9 as @.
        shown = (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02X}".replace("9", "@") for byte in data)
        return f'"{"".join(shown)}"'


def compare_dump(expected: str, got: str, path: str) -> None:
    """Dumps were cut at 6,000 characters."""
    if len(expected) > 6000 and expected.endswith("..."):
        expected, got = expected[:6000], got[:6000]
    elif expected != got:
        for one, other in zip(expected.splitlines(), got.splitlines(), strict=False):
            compare(one, other, path)
    if expected != got:
        raise Mismatch(f"{path}: {expected!r} expected, {got!r} decoded")
