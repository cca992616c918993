"""What is measured: a row is one work, done by everyone who can. Each group is a list of rows."""

from __future__ import annotations

from typing import NamedTuple

CODECS = ("zlib", "lz4", "lz4hdf5", "bslz4", "blosc", "jpeg")


class Row(NamedTuple):
    text: str
    goal: int | None  # ns, of the compiled twin
    module: str
    function: str
    args: tuple[object, ...] = ()
    subjects: tuple[str, ...] = ()  # these alone; everyone who can, where it is empty
    x: float | None = None  # where it stands on the axis of its group's chart


DECODE = [
    Row("decode: NTScalar, value + time changed", 240, "bench_value", "decode_update", ("nts.vt",)),
    Row("decode: NTScalar, value + alarm + time", 300, "bench_value", "decode_update", ("nts.full",)),
    Row("decode: small NTScalar, the same", 280, "bench_value", "decode_update", ("ntsmin.full",)),
    Row("decode: NTScalar, every field", 650, "bench_value", "decode_update", ("nts.all",)),
    Row("the whole way: an update of a chunk of 1,000", 1000, "bench_connection", "updates_in_a_chunk"),
    Row("decode: 1,000 doubles", 400, "bench_value", "decode_update", ("ntsa.1000",)),
    Row("decode: 1,000 strings", 45_000, "bench_value", "decode_update", ("ntsas.1000",)),
    Row(
        "decode: 1,000,000 doubles, the other byte order",
        None,
        "bench_array",
        "unpack",
        ("double", 1_000_000, "big"),
    ),
    Row("decode: NTTable, 4 columns of 100", 2500, "bench_value", "decode_update", ("tbl.upd",)),
    Row("NTNDArray → shaped array, 512×512", 3500, "bench_value", "decode_frame", ("nd.512",)),
    Row("NTNDArray → shaped array, 2048×2048", 3500, "bench_value", "decode_frame", ("nd.2048",)),
    Row(
        "decode: NTScalar, every field, projected to `value`",
        None,
        "bench_projection",
        "some_fields",
        ("nts.all", "value"),
    ),
    Row("decode: 27,000 structures of 6 numbers", None, "bench_projection", "rows_whole", ("numbers",)),
    Row("the same, projected to 6 columns", None, "bench_projection", "rows_to_columns", ("numbers",)),
    Row("type first met: NTScalar", 2100, "bench_introspection", "first_met", ("nts.vt",)),
    Row("the same, nothing in it known", 2100, "bench_introspection", "stranger", ("nts.vt",)),
    Row("type first met: NTNDArray", 3800, "bench_introspection", "first_met", ("nd.512",)),
    Row("the same of NTNDArray, nothing known", 3800, "bench_introspection", "stranger", ("nd.512",)),
    Row("type met again: a look-up in the cache", 400, "bench_introspection", "met_again", ("nts.vt",)),
    Row('`v["value"]`', 40, "bench_value", "access", ('v["value"]',)),
    Row("`v.value`", 60, "bench_value", "access", ("v.value",)),
    Row("framing: a message of a chunk of 1,000", None, "bench_framing", "in_a_chunk"),
    Row("BitSet decoded", None, "bench_bitset", "decode", ("nts.all",)),
    Row("BitSet expanded to 24 leaves", None, "bench_bitset", "expand", ("nts.all",)),
    Row("a Size, `Reader.size()`", None, "bench_buffer", "read_sizes", ("short",)),
    Row("a Size inside of a value (an empty string)", None, "bench_buffer", "empty_strings"),
]

ENCODE = [
    Row("encode: NTScalar, value + alarm + time", 200, "bench_value", "encode_update", ("nts.full",)),
    Row("encode: small NTScalar, the same", None, "bench_value", "encode_update", ("ntsmin.full",)),
    Row("encode: an array of 1,000 doubles", None, "bench_array", "pack", ("double", 1000, "little")),
    Row("framing: a message out", None, "bench_framing", "out"),
]

COLUMNS = [
    Row("into columns: an update of a batch of 1,000, `add`", 45, "bench_columns", "value_and_time"),
    Row("a million updates, framing and columns: an update", None, "bench_columns", "stream_of_many"),
    Row("losses accounted: an update, `add`", None, "bench_losses", "frames"),
    Row("a capture summed up: an update in a packet of its own", None, "bench_packets", "summed"),
]

PIXELS = 2048  # of decompression

FRAMES = [
    row
    for n in (512, 2048)
    for row in (
        Row(f"{n}×{n}: memcpy of the same bytes", None, "bench_frames", "memcpy", (n,), ("c",)),
        Row(f"{n}×{n}: received into a pool", None, "bench_frames", "stream", (n, "pool")),
        Row(f"{n}×{n}: no pool", None, "bench_frames", "stream", (n, "views")),
        Row(f"{n}×{n}: copied into a pool", None, "bench_frames", "stream", (n, "copied"), ("c",)),
        Row(
            f"{n}×{n}: payload → array",
            None,
            "bench_value",
            "decode_frame",
            (f"nd.{n}",),
            ("spvirit", "caproto"),
        ),
    )
]

ACCESS = [Row("of a Value, the shaped array", None, "bench_frames", "value_to_array", (512,))]

DECOMPRESS = [
    Row(f"{codec}: {way}", None, "bench_frames", function, (codec, PIXELS), ("c",))
    for codec in CODECS
    for way, function in (("pvafast", "decompress"), ("the library's own call", "library"))
]

# The first x is what the others are compared with in the chart of threads.
SIZES = [
    Row(f"decode: {n:,} doubles of an array", None, "bench_array", "unpack", ("double", n, "little"), x=8 * n)
    for n in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
]
FIELDS = [
    Row(f"decode: a structure of {n:,} doubles", None, "bench_fields", "structure", (n,), x=n)
    for n in (1, 3, 10, 30, 100, 300, 1000)
]
THREADS = [
    Row(f"{text}, {n} threads", None, "bench_threads", function, (n,), ("c", "py"), x=n)
    for text, function in (("updates", "updates"), ("lz4 frames", "frames"))
    for n in (1, 2, 4)
]

# Beside those of live_*.py, see run.py.
LIVE = [
    Row(f"{text}: {way}", None, "bench_live", function)
    for text, way, function in (
        ("one get of pvafast's server", "blocking", "get"),
        ("one get of pvafast's server", "asyncio", "get_in_asyncio"),
        ("one get of pvafast's server", "asyncio, 100 in flight", "get_many"),
        ("one of 10,000 scalar updates", "blocking", "updates"),
        ("one of 10,000 scalar updates", "asyncio", "updates_in_asyncio"),
        ("one of 10,000 scalar updates", "into columns", "updates_into_columns"),
        ("one of 200 frames of 512×512 uint16", "blocking", "frames"),
        ("one post, 4 at a time", "thread", "post"),
        ("one post of a frame of 512×512 uint16, 3 at a time", "thread", "post_frames"),
    )
]

GROUPS: dict[str, list[Row]] = {
    "decode": DECODE,
    "encode": ENCODE,
    "columns": COLUMNS,
    "frames": FRAMES,
    "access": ACCESS,
    "decompress": DECOMPRESS,
    "sizes": SIZES,
    "fields": FIELDS,
    "threads": THREADS,
    "live": LIVE,
}
