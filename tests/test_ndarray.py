"""NTNDArray: recorded frames are the exact arrays; compressed ones, made here by hand or by the libraries, too; damage is told."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import corpus
import told
from pvafast import AnyValue, Codec, FieldDesc, UnionValue, Value, messages, ndarray, normative
from pvafast.errors import EncodeError, FrameError, RangeError
from pvafast.ndarray import BayerPattern, ColorMode, Dimension, Frame, NTNDArray, encode

NDArray = np.ndarray[Any, np.dtype[Any]]

DTYPES = [np.dtype(code) for code in "?bhiqBHIQfd"]
# WIRE: pvData's ScalarType, areaDetector's NDDataType_t.
SCALAR_TYPE = {dtype: number for number, dtype in enumerate(DTYPES)}
ND_TYPE = {np.dtype(code): number for number, code in enumerate("bBhHiIqQfd")}
LOSSLESS = ["zlib", "blosc", "lz4", "lz4hdf5", "bslz4"]
# musl has no wheels of imagecodecs; zlib is part of Python.
HERE = LOSSLESS if importlib.util.find_spec("imagecodecs") else ["zlib"]


@pytest.fixture(scope="session")
def library() -> Any:
    return pytest.importorskip("imagecodecs", reason="no wheels for musl")


def frame_value(
    data: NDArray,
    sizes: list[int],
    *,
    member: str = "ubyteValue",
    codec: str = "",
    parameters: AnyValue | None = None,
    compressed: int = 0,
    uncompressed: int = 0,
    mode: int | None = None,
) -> Value:
    """An NTNDArray filled in by hand; sizes in the order of the wire."""
    value = Value(NTNDArray().type)
    value["value"] = UnionValue(member, data)
    value["codec"] = {"name": codec, "parameters": parameters}
    value["compressedSize"] = compressed
    value["uncompressedSize"] = uncompressed
    value["dimension"] = [{"size": size, "fullSize": size, "binning": 1} for size in sizes]
    if mode is not None:
        value["attribute"] = [{"name": "ColorMode", "value": AnyValue("int32", mode)}]
    return value


def compressed(
    codec: str, packed: bytes, shape: tuple[int, ...], dtype: Any, *, mode: int | None = None, **other: Any
) -> Value:
    """As areaDetector sends it: bytes in ubyteValue, both sizes, pvData's number of the type as an int32."""
    dtype = np.dtype(dtype)
    options: dict[str, Any] = {
        "parameters": AnyValue("int32", SCALAR_TYPE[dtype]),
        "compressed": len(packed),
        "uncompressed": int(np.prod(shape)) * dtype.itemsize,
    }
    sizes = list(reversed(shape))
    return frame_value(np.frombuffer(packed, np.uint8), sizes, codec=codec, mode=mode, **(options | other))


def sent(value: Value, byteorder: Any = "little") -> Value:
    out = Codec()
    return Codec().decode(value.type, out.encode(value, byteorder=byteorder), byteorder=byteorder)[0]


def pixels(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> NDArray:
    """Something that compresses, with all values in it somewhere."""
    dtype = np.dtype(dtype)
    ramp = np.arange(int(np.prod(shape))).reshape(shape) // 3 + seed
    if dtype.kind == "f":
        return (ramp / 7).astype(dtype)
    return (ramp % 2 == 0) if dtype.kind == "b" else (ramp % 200).astype(dtype) * dtype.type(1)


# --- recorded frames --------------------------------------------------------------------------------------------------


def array_of(form: Any) -> tuple[str, list[int], str]:
    """dtype, shape and digest of an array in expected.json."""
    form = form["array"]
    if "sha256" not in form:
        data = np.array(form["data"], form["dtype"])
        return form["dtype"], form["shape"], hashlib.sha256(data.tobytes()).hexdigest()
    return form["dtype"], form["shape"], form["sha256"]


def check_frame(frame: Frame, fields: Mapping[str, Any], array: Any, path: str) -> None:
    """The frame is what the peer's client told of it."""
    dtype, (count,), digest = array_of(array)
    assert frame.dtype == np.dtype(dtype), path
    assert frame.data.size == count, path
    assert corpus.digest(frame.data) == digest, path
    assert frame.data.dtype.isnative
    assert not frame.data.flags.writeable
    sizes = [one.get("fields", one)["size"] for one in fields["dimension"]]
    assert list(frame.data.shape) == sizes[::-1], path
    assert frame.unique_id == fields["uniqueId"], path
    stamp = fields["dataTimeStamp"]
    stamp = stamp.get("fields", stamp)
    assert frame.data_timestamp_ns == stamp["secondsPastEpoch"] * 10**9 + stamp["nanoseconds"], path


@pytest.mark.parametrize("session", ["p4p_ndarray_types", "p4pBE_ndarray_modes", "p4pcli_pvapysrv_ndarray"])
def test_frames_as_p4p_decoded_them(session: str) -> None:
    entries = {entry["pv"]: entry["value"]["fields"] for entry in corpus.sessions()[session].expected}
    found = told.values(session)
    assert len(found) == len(entries)
    for pv, value in found:
        fields = entries[pv]
        frame = normative.read(value)
        assert isinstance(frame, Frame)
        if fields["value"] is None:
            assert (frame.data.shape, frame.data.dtype, frame.dimensions) == ((0,), np.uint8, ())
        elif fields["codec"]["fields"]["name"]:
            assert (frame.codec, frame.dtype, frame.shape) == ("lz4", np.uint8, (64, 64))
            assert frame.compressed_nbytes == 1000
            pytest.importorskip("imagecodecs")
            with pytest.raises(FrameError, match="lz4"):  # it is no LZ4
                _ = frame.data
        else:
            check_frame(frame, fields, fields["value"], f"{session} {pv}")


def test_frames_as_pvapy_decoded_them() -> None:
    entries = {entry["pv"]: entry["value"] for entry in corpus.sessions()["pvapy_ndarray"].expected}
    found = told.values("pvapy_ndarray")
    assert {pv for pv, _ in found} == set(entries)
    for pv, value in found:
        (array,) = entries[pv]["value"][0].values()
        check_frame(normative.read(value), entries[pv], array, pv)


def test_every_member_of_the_union_was_among_them() -> None:
    kinds = {normative.read(value).dtype for _, value in told.values("p4p_ndarray_types")}
    assert kinds == set(DTYPES)


def test_frames_of_a_monitor() -> None:
    (entry,) = corpus.sessions()["p4p_monitor_nd"].expected
    events = [event["value"]["fields"] for event in entry["events"] if "value" in event]
    updates = told.values("p4p_monitor_nd", messages.MonitorUpdate)
    assert len(updates) == len(events) > 5
    for i, ((_, value), fields) in enumerate(zip(updates, events, strict=True)):
        frame = normative.read(value)
        check_frame(frame, fields, fields["value"], str(i))
        assert frame.data.shape == (512, 512)


def test_a_frame_in_an_any() -> None:
    (_, value), *_ = told.values("p4p_any_ndarr_quirk")
    frame = normative.read(value["x"].value)
    assert (frame.data.shape, frame.codec, dict(frame.attributes)) == ((0,), "", {})


def test_a_frame_of_a_group_of_qsrv() -> None:
    """Whose pixels are in an any, whose dimensions have a size alone, and which has nothing else."""
    fd = FieldDesc.structure(
        "epics:nt/NTNDArray:1.0",
        {"value": "any", "dimension": FieldDesc.of({"size": "int32"}).array()},
    )
    pixels = np.arange(6, dtype=np.uint16)
    value = Value(fd, {"value": AnyValue("uint16[]", pixels), "dimension": [{"size": 3}, {"size": 2}]})
    frame = normative.read(value)
    assert np.array_equal(frame.data, pixels.reshape(2, 3))
    assert (frame.color_mode, frame.unique_id, dict(frame.attributes)) == (ColorMode.MONO, 0, {})
    with pytest.raises(FrameError, match="no numeric array in `value`"):
        ndarray.Frame(Value(fd, {"value": AnyValue("int32", 1)}))


def test_colour_modes_and_attributes_of_p4p() -> None:
    modes = {pv: normative.read(value) for pv, value in told.values("p4pBE_ndarray_modes")}
    assert {pv: (frame.color_mode, frame.axes, frame.shape) for pv, frame in modes.items()} == {
        "nd:mono": (ColorMode.MONO, "yx", (48, 64)),
        "nd:bayer": (ColorMode.BAYER, "yx", (48, 64)),
        "nd:rgb1": (ColorMode.RGB1, "yxc", (48, 64, 3)),
        "nd:rgb2": (ColorMode.RGB2, "ycx", (48, 3, 64)),
        "nd:rgb3": (ColorMode.RGB3, "cyx", (3, 48, 64)),
        "nd:empty": (ColorMode.MONO, "x", (0,)),
        "nd:attrs": (ColorMode.MONO, "yx", (16, 32)),
        "nd:codec": (ColorMode.MONO, "yx", (64, 64)),
    }
    attributes = modes["nd:attrs"].attributes
    (entry,) = (e for e in corpus.sessions()["p4pBE_ndarray_modes"].expected if e["pv"] == "nd:attrs")
    listed = [one["fields"] for one in entry["value"]["fields"]["attribute"]]
    assert list(attributes) == [one["name"] for one in listed]
    assert "Gain" in attributes
    assert len(attributes) == len(listed)
    for one in listed:
        corpus.compare(one["value"], attributes[one["name"]])
        info = attributes.info(one["name"])
        assert (info.descriptor, info.source, info.source_type, list(info.tags)) == (
            one["descriptor"],
            one["source"],
            one["sourceType"],
            one["tags"],
        )
        assert info.severity == one["alarm"]["fields"]["severity"]
    with pytest.raises(KeyError):
        attributes["absent"]


# --- raw frames -------------------------------------------------------------------------------------------------------


def test_raw_frames_are_views_of_what_was_received() -> None:
    image = pixels((512, 512), "H")
    out = Codec()
    value = encode(image)
    data = out.encode(value)
    received, _ = Codec().decode(value.type, data)
    frame = Frame(received)
    whole = np.frombuffer(data, np.uint8)
    assert np.shares_memory(frame.data, whole)
    assert np.array_equal(frame.data, image)
    assert frame.data is frame.data
    tracemalloc.start()
    again = Frame(received).data
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000
    assert again.shape == (512, 512)
    # On the way out, the pixels are sent from where they are.
    assert np.shares_memory(value["value"].value, image)


def test_segmented_frames_are_views_too() -> None:
    """pvAccessCPP sends the pixels as a segment of their own."""
    (_, value) = next(pair for pair in told.values("pvapy_ndarray") if pair[0] == "nd:512")
    frame = normative.read(value)
    assert np.shares_memory(frame.data, value["value"].value)


def test_what_comes_with_a_frame() -> None:
    value = NTNDArray(style="pvdata").wrap(
        pixels((2, 3, 4), "h"),
        unique_id=-7,
        attributes={"Gain": 2.5, "Name": "cam", "N": 3, "Big": 2**40, "Raw": np.uint8(5)},
        dimensions=[Dimension(4, 10, 100, 2, True), Dimension(3, 20, 200, 1, False), (2, 0, 2)],
        color_mode=ColorMode.RGB1,
        timestamp_ns=1_700_000_000_123_456_789,
        data_timestamp=(1_600_000_000, 5),
        severity=1,
        descriptor="beam",
    )
    frame = normative.read(sent(value))
    assert frame.shape == (2, 3, 4)
    assert (frame.ndim, frame.size, frame.nbytes) == (3, 24, 48)
    assert frame.offset == (0, 20, 10)
    assert frame.full_size == (2, 200, 100)
    assert frame.binning == (1, 1, 2)
    assert frame.reverse == (False, False, True)
    assert frame.dimensions[0] == Dimension(4, 10, 100, 2, True)
    assert frame.unique_id == -7
    assert (frame.timestamp_ns, frame.data_timestamp_ns) == (
        1_700_000_000_123_456_789,
        1_600_000_000_000_000_005,
    )
    assert frame.timestamp == pytest.approx(1_700_000_000.123456)
    assert frame.data_timestamp == 1_600_000_000.000000005
    assert (frame.severity, frame.description) == (1, "beam")
    assert dict(frame.attributes) == {
        "Gain": 2.5, "Name": "cam", "N": 3, "Big": 2**40, "Raw": 5, "ColorMode": 2
    }  # fmt: skip
    kinds = {one["name"]: one["value"].type.format("short") for one in value["attribute"]}
    assert kinds == {
        "Gain": "double", "Name": "string", "N": "int32", "Big": "int64", "Raw": "uint8", "ColorMode": "int32"
    }  # fmt: skip
    assert "-7: 4 × 3 × 2 int16 RGB1" in repr(frame)


def test_a_frame_is_an_array_to_numpy() -> None:
    image = pixels((3, 4), "H")
    frame = normative.read(encode(image))
    assert np.array_equal(np.asarray(frame), image)
    assert np.shares_memory(np.asarray(frame), frame.data)
    assert np.mean(frame) == image.mean()
    assert np.array_equal(np.zeros((3, 4)) + frame, image)
    assert np.asarray(frame, np.float32).dtype == np.float32
    copied = np.array(frame)
    assert copied.flags.writeable
    assert not np.shares_memory(copied, frame.data)


def test_frames_pickle() -> None:
    for codec in ("", "zlib"):
        frame = normative.read(encode(pixels((3, 4), "H"), codec=codec, unique_id=3))
        again = pickle.loads(pickle.dumps(frame))
        assert again.raw == frame.raw
        assert np.array_equal(again.data, frame.data)


def test_dimensions_and_elements() -> None:
    data = pixels((12,), "H")
    assert Frame(frame_value(data, [], member="ushortValue")).shape == (12,)
    # The standard: at least as many elements as the dimensions need.
    short = Frame(frame_value(data, [5, 2], member="ushortValue"))
    assert np.array_equal(short.data, data[:10].reshape(2, 5))
    assert np.shares_memory(short.data, data)
    with pytest.raises(FrameError, match="dimensions 5 × 3 need 15 elements, 12 found"):
        Frame(frame_value(data, [5, 3], member="ushortValue"))
    assert Frame(frame_value(data[:0], [0, 7])).data.shape == (7, 0)
    assert Frame(frame_value(data, [0, 2**31 - 1], member="ushortValue")).data.shape == (2**31 - 1, 0)
    nothing = Frame(Value(NTNDArray().type))
    assert (nothing.shape, nothing.dtype, nothing.data.size) == ((0,), np.uint8, 0)


def test_the_members_of_areadetector() -> None:
    """normativeTypesCPP's order, as in WIRE."""
    fd = NTNDArray(style="pvdata").type
    assert list(fd.members) == [
        *("value", "codec", "compressedSize", "uncompressedSize", "dimension", "uniqueId", "dataTimeStamp"),
        *("attribute", "descriptor", "alarm", "timeStamp"),
    ]
    assert list(fd["attribute"].members) == [
        *("name", "value", "tags", "descriptor", "sourceType", "source", "alarm", "timeStamp")
    ]
    entry = corpus.sessions()["p4p_ndarray_types"].expected[0]
    assert corpus.type_p4p(NTNDArray().type)[:2] == entry["type"]["spec"][:2]
    ours = {name: corpus.type_p4p(member) for name, member in NTNDArray().type.members.items()}
    theirs = dict(entry["type"]["spec"][2])
    their_attribute = dict(theirs.pop("attribute")[2])
    our_attribute = dict(ours.pop("attribute")[2])
    assert list(ours.items()) == list(theirs.items())
    assert our_attribute == their_attribute


# --- compressed frames, by hand -----------------------------------------------------------------------------------------


def lz4_literals(data: bytes) -> bytes:
    """An LZ4 block of one sequence without a match."""
    n = len(data)
    if n < 15:
        return bytes([n << 4]) + data
    rest = n - 15
    return b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + data


def lz4_run(byte: int, n: int) -> bytes:
    """An LZ4 block: a byte, a match that repeats it, five literals, as the format wants them at the end."""
    rest = n - 6 - 4 - 15
    return bytes([0x1F, byte, 1, 0]) + b"\xff" * (rest // 255) + bytes([rest % 255, 0x50]) + bytes([byte] * 5)


def bitshuffled(data: NDArray) -> bytes:
    """The bits of the elements, transposed: first the lowest of each, eight elements to a byte."""
    bits = np.unpackbits(data.view(np.uint8).reshape(len(data), -1), axis=1, bitorder="little")
    return np.packbits(bits.T, axis=1, bitorder="little").tobytes()


def bslz4(data: NDArray, header: bool = False) -> bytes:
    flat = data.reshape(-1)
    block = max(8192 // flat.itemsize // 8 * 8, 128)
    whole = len(flat) // 8 * 8
    parts = [struct.pack(">QI", flat.nbytes, block * flat.itemsize)] if header else []
    for at in range(0, whole, block):
        packed = lz4_literals(bitshuffled(flat[at : min(at + block, whole)]))
        parts += [struct.pack(">I", len(packed)), packed]
    return b"".join([*parts, flat[whole:].tobytes()])


def lz4hdf5(data: NDArray, block: int) -> bytes:
    raw = data.tobytes()
    parts = [struct.pack(">QI", len(raw), block)]
    for number, at in enumerate(range(0, len(raw), block)):
        piece = raw[at : at + block]
        packed = piece if number % 2 else lz4_literals(piece)
        parts += [struct.pack(">I", len(packed)), packed]
    return b"".join(parts)


def blosc(data: NDArray) -> bytes:
    """A Blosc 1 frame whose data are only copied (flag 2)."""
    raw = data.tobytes()
    return struct.pack("<BBBBIII", 2, 1, 2, data.itemsize, len(raw), len(raw), len(raw) + 16) + raw


BY_HAND = {
    "zlib": lambda data: zlib.compress(data.tobytes()),
    "blosc": blosc,
    "lz4": lambda data: lz4_literals(data.tobytes()),
    "lz4hdf5": lambda data: lz4hdf5(data, 1000),
    "bslz4": bslz4,
}
SHAPES = [(1,), (7,), (8,), (5, 7), (64, 64), (3, 50, 41)]


@pytest.mark.parametrize("codec", LOSSLESS)
def test_frames_compressed_by_hand(library: Any, codec: str) -> None:
    for dtype in DTYPES:
        for shape in SHAPES:
            image = pixels(shape, dtype)
            packed = BY_HAND[codec](image)
            frame = normative.read(sent(compressed(codec, packed, shape, dtype)))
            assert (frame.codec, frame.dtype, frame.shape) == (codec, dtype, shape)
            assert frame.compressed_nbytes == len(packed)
            assert np.array_equal(frame.data, image), (dtype, shape)
            assert not frame.data.flags.writeable


def unshuffled(data: bytes, dtype: Any) -> NDArray:
    """What `bitshuffled` made the bytes of."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    size = np.dtype(dtype).itemsize
    return np.packbits(bits.reshape(8 * size, -1).T, bitorder="little").view(dtype)


def lz4_of_its_own_length(n: int) -> tuple[bytes, bytes]:
    """`n` bytes, and an LZ4 block of them that is `n` bytes long: literals, a match that saves as much as they cost, literals."""
    rng = np.random.default_rng(n)
    for match in range(4, 100):
        before = n - match - 5
        extra, more = before - 15, match - 19
        packed = bytes([0xF0 | min(match - 4, 15)]) + b"\xff" * (extra // 255) + bytes([extra % 255])
        plain = rng.integers(0, 256, before, np.uint8).tobytes()
        packed += plain + b"\x01\x00" + (bytes([more]) if more >= 0 else b"")
        last = rng.integers(0, 256, 5, np.uint8).tobytes()
        packed += lz4_literals(last)
        if len(packed) == n:
            return plain + plain[-1:] * match + last, packed
    raise AssertionError("none found")


@pytest.mark.parametrize("dtype", ["u1", "u2", "f8"])
def test_blocks_of_bslz4_that_are_as_long_as_what_they_hold(library: Any, dtype: str) -> None:
    odd, packed = lz4_of_its_own_length(8192)
    plain = np.random.default_rng(1).integers(0, 256, 8192, np.uint8).tobytes()
    short, packed_short = lz4_of_its_own_length(1024)
    stream = b""
    for one in (lz4_literals(plain), packed, packed, lz4_literals(plain), packed_short):
        stream += struct.pack(">I", len(one)) + one
    image = np.concatenate([unshuffled(one, dtype) for one in (plain, odd, odd, plain, short)])
    frame = Frame(compressed("bslz4", stream, image.shape, dtype))
    assert frame.data.tobytes() == image.tobytes()
    # As long as their block, and no LZ4, or LZ4 of less.
    for wrong in (bytes(8192), lz4_literals(plain[: 8192 - 33])):
        assert len(wrong) == 8192
        broken = Frame(compressed("bslz4", stream.replace(packed, wrong), image.shape, dtype))
        with pytest.raises(FrameError, match="bslz4"):
            broken.decode()


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "f4", "u8", "f8"])
@pytest.mark.parametrize("block", [0, 128, 1000, 8192, 1 << 20])
def test_bslz4_of_all_sizes(library: Any, dtype: str, block: int) -> None:
    """Of less than a block, of many runs, with elements left over."""
    size = np.dtype(dtype).itemsize
    for n in (1, 7, 8, 9, 127, 8192 // size, 8192 // size + 8, 100_003, 400_000):
        image = np.random.default_rng(n).integers(0, 2, n).astype(dtype)
        flat, whole = image.view(np.uint8), n // 8 * 8
        elements = block or max(8192 // size // 8 * 8, 128)
        parts = [struct.pack(">QI", image.nbytes, elements * size)]
        for at in range(0, whole, elements):
            packed = lz4_literals(bitshuffled(image[at : min(at + elements, whole)]))
            parts += [struct.pack(">I", len(packed)), packed]
        parts.append(flat[whole * size :].tobytes())
        for stream in [b"".join(parts)] if block else [b"".join(parts), b"".join(parts[1:])]:
            frame = Frame(compressed("bslz4", stream, (n,), dtype))
            assert frame.data.tobytes() == image.tobytes()


def test_lz4_with_matches(library: Any) -> None:
    image = np.full((100, 300), 7, np.uint8)
    packed = lz4_run(7, image.size)
    assert len(packed) < 200
    assert np.array_equal(Frame(compressed("lz4", packed, image.shape, "B")).data, image)


def test_chunks_of_hdf5_files_keep_their_header(library: Any) -> None:
    """Detectors that write HDF5 chunks pass them on with the header of the filter."""
    image = pixels((50, 60), "I")
    for codec, packed in (("bslz4", bslz4(image, header=True)), ("lz4", lz4hdf5(image, 4096))):
        assert np.array_equal(Frame(compressed(codec, packed, image.shape, "I")).data, image)


@pytest.mark.parametrize("compressor", ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_every_compressor_of_blosc(library: Any, compressor: str, shuffle: int) -> None:
    image = pixels((700, 800), "i") // 8  # of small ones it merely copies what it could give to snappy
    packed = library.blosc_encode(image.tobytes(), compressor=compressor, shuffle=shuffle)
    assert not packed[2] & 2
    assert len(packed) < image.nbytes
    assert np.array_equal(Frame(compressed("blosc", packed, image.shape, "i")).data, image)


@pytest.mark.parametrize("order", ["little", "big"])
def test_byte_order_inside_of_compressed_data(library: Any, order: Any) -> None:
    image = pixels((30, 40), "H")
    inside = image.astype(image.dtype.newbyteorder(order))
    for codec in LOSSLESS:
        frame = Frame(compressed(codec, BY_HAND[codec](inside), image.shape, "H"), byteorder=order)
        assert np.array_equal(frame.data, image)
        assert frame.data.dtype.isnative
    # On the wire, bytes have no order.
    value = compressed("zlib", zlib.compress(inside.tobytes()), image.shape, "H")
    assert np.array_equal(Frame(sent(value, "big"), byteorder=order).data, image)
    with pytest.raises(ValueError, match="byteorder must be"):
        Frame(value, byteorder="middle")  # type: ignore[arg-type]


def smooth(height: int, width: int) -> NDArray:
    """An RGB image of large smooth areas, which JPEG leaves nearly as they are."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [x * 200 // width, y * 200 // height, (x + y) * 100 // (height + width) + 50], axis=2
    ).astype("B")


@pytest.mark.parametrize("dtype", ["B", "b"])
def test_jpeg(library: Any, dtype: str) -> None:
    rgb = smooth(40, 56)
    grey = rgb[:, :, 0].copy()
    packed = library.jpeg8_encode(grey, level=95)
    frame = Frame(compressed("jpeg", packed, (40, 56), dtype, mode=0))
    assert frame.data.dtype == dtype
    assert np.array_equal(frame.data.view("B"), library.jpeg8_decode(packed))
    assert abs(frame.data.view("B").astype(int) - grey).max() < 12

    packed = library.jpeg8_encode(rgb, level=95)
    exact = library.jpeg8_decode(packed)
    assert abs(exact.astype(int) - rgb).max() < 20
    for mode, axes in ((2, (0, 1, 2)), (3, (0, 2, 1)), (4, (2, 0, 1))):
        shape = tuple(exact.shape[axis] for axis in axes)
        frame = Frame(compressed("jpeg", packed, shape, dtype, mode=mode))
        assert np.array_equal(frame.data.view("B"), exact.transpose(axes))
        assert np.array_equal(frame.to_rgb().view("B"), exact)


@pytest.mark.parametrize("codec", [*LOSSLESS, "jpeg"])
def test_decoding_into_a_buffer(library: Any, codec: str) -> None:
    image = smooth(32, 48)[:, :, 1].copy() if codec == "jpeg" else pixels((32, 48), "H")
    packed = library.jpeg8_encode(image) if codec == "jpeg" else BY_HAND[codec](image)
    frame = Frame(compressed(codec, packed, image.shape, image.dtype))
    buffer = np.zeros(image.size + 8, image.dtype)
    got = frame.decode(buffer[3:-5])
    assert got.shape == image.shape
    assert np.shares_memory(got, buffer)
    assert np.array_equal(got, frame.data)
    assert not buffer[:3].any()
    assert not buffer[-5:].any()
    fresh = frame.decode()
    assert fresh.flags.writeable
    assert not np.shares_memory(fresh, frame.data)


def test_buffers_that_do_not_suit() -> None:
    frame = normative.read(encode(pixels((3, 4), "H")))
    with pytest.raises(ValueError, match="out of 12 int16 for a frame of 12 uint16"):
        frame.decode(np.empty((3, 4), np.int16))
    with pytest.raises(ValueError, match="out of 6 uint16"):
        frame.decode(np.empty(6, np.uint16))
    with pytest.raises(ValueError, match="C-contiguous and writable"):
        frame.decode(np.empty((4, 3), np.uint16).T)
    locked = np.empty((3, 4), np.uint16)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="C-contiguous and writable"):
        frame.decode(locked)
    assert np.array_equal(frame.decode(np.empty(12, np.uint16)), frame.data)


def test_decompressing_makes_nothing_but_the_frame(library: Any) -> None:
    image = pixels((1000, 1000), "H")
    for codec in LOSSLESS:
        frame = Frame(compressed(codec, BY_HAND[codec](image), image.shape, "H"))
        out = np.empty(image.shape, np.uint16)
        frame.decode(out)
        tracemalloc.start()
        frame.decode(out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 600_000, codec


# --- the type before compression ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_type_from_codec_parameters(dtype: np.dtype[Any]) -> None:
    """WIRE: an int32 with pvData's number; int64 and areaDetector's own number in a branch of ADCore."""
    shape = (4, 6)
    packed = zlib.compress(pixels(shape, dtype).tobytes())
    for kind in ("int32", "uint32", "int8", "uint64"):
        value = compressed("zlib", packed, shape, dtype, parameters=AnyValue(kind, SCALAR_TYPE[dtype]))
        assert Frame(value).dtype == dtype
    if dtype in ND_TYPE:
        value = compressed("zlib", packed, shape, dtype, parameters=AnyValue("int64", ND_TYPE[dtype]))
        frame = Frame(value)
        assert frame.dtype == dtype
        assert np.array_equal(frame.data, pixels(shape, dtype))
    if dtype.itemsize > 1:
        # Whichever number it is, where one of the two meanings fits the sizes that one is meant.
        for kind in ("int32", "int64"):
            for number in (SCALAR_TYPE[dtype], ND_TYPE[dtype]):
                others = [table[number] for table in tables() if number < len(table)]
                if sum(other.itemsize == dtype.itemsize for other in others) == 1:
                    value = compressed("zlib", packed, shape, dtype, parameters=AnyValue(kind, number))
                    assert Frame(value).dtype == dtype


def tables() -> list[list[np.dtype[Any]]]:
    return [list(SCALAR_TYPE), list(ND_TYPE)]


def test_types_that_are_not_told() -> None:
    packed = zlib.compress(bytes(48))
    for parameters in (
        None,
        AnyValue("string", "x"),
        AnyValue("int32", 11),
        AnyValue("int32", -1),
        AnyValue("double", 5),
    ):
        value = compressed("zlib", packed, (4, 6), "H", parameters=parameters)
        with pytest.raises(FrameError, match=r"do not tell the element type of the zlib data: give dtype"):
            Frame(value)
        assert Frame(value, dtype="uint16").data.dtype == np.uint16
        assert Frame(value, dtype=">u2").dtype.isnative
    # Servers may leave the size 0.
    value = compressed("zlib", packed, (4, 6), "H", uncompressed=0, compressed=0)
    assert Frame(value).dtype == np.uint16
    with pytest.raises(FrameError, match="uncompressedSize 48 for dimensions 6 × 4 of float64"):
        Frame(value_with(packed, uncompressed=48), dtype="double")
    with pytest.raises(FrameError, match="uncompressedSize 49 for dimensions 6 × 4 of uint16 or int64"):
        Frame(value_with(packed, uncompressed=49))
    with pytest.raises(ValueError, match="no elements of complex128"):
        Frame(value, dtype="complex128")


def value_with(packed: bytes, **other: Any) -> Value:
    return compressed("zlib", packed, (4, 6), "H", **other)


def test_jpeg_needs_no_type(library: Any) -> None:
    image = smooth(16, 16)[:, :, 0].copy()
    value = compressed("jpeg", library.jpeg8_encode(image), (16, 16), "B", parameters=None)
    assert Frame(value).data.dtype == np.uint8


# --- colour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["B", "b", "H", "i", "Q", "f", "d"])
def test_rgb_and_mono(dtype: str) -> None:
    rgb = pixels((4, 5, 3), dtype)
    rgb[0, 0] = (3, 4, 6)
    views = {2: rgb, 3: rgb.transpose(0, 2, 1).copy(), 4: rgb.transpose(2, 0, 1).copy()}
    for mode, array in views.items():
        frame = normative.read(sent(encode(array, color_mode=mode)))
        assert frame.axes == {2: "yxc", 3: "ycx", 4: "cyx"}[mode]
        assert np.array_equal(frame.to_rgb(), rgb)
        assert np.shares_memory(frame.to_rgb(), frame.data)
        mono = frame.to_mono()
        assert (mono.shape, mono.dtype) == ((4, 5), np.dtype(dtype))
        # areaDetector: (R + G + B) / 3, cut to the type.
        expected = [
            [sum(pixel) / 3 if dtype in "fd" else int(sum(pixel) / 3) for pixel in row]
            for row in rgb.tolist()
        ]
        assert np.allclose(mono, expected)
        assert np.array_equal(frame.to_mono(weights=(0, 1, 0)), rgb[:, :, 1])
    assert normative.read(encode(rgb)).color_mode == ColorMode.RGB1


def test_mono_frames() -> None:
    image = pixels((4, 5), "H")
    frame = normative.read(encode(image))
    assert frame.to_mono() is frame.data
    rgb = frame.to_rgb()
    assert rgb.shape == (4, 5, 3)
    assert np.shares_memory(rgb, frame.data)
    assert all(np.array_equal(rgb[:, :, c], image) for c in range(3))
    large = np.full((2, 2, 3), 2**64 - 1, np.uint64)
    assert (normative.read(encode(large)).to_mono() > 2**63).all()


@pytest.mark.parametrize("pattern", list(BayerPattern))
@pytest.mark.parametrize("dtype", ["B", "H", "f"])
def test_bayer(pattern: BayerPattern, dtype: str) -> None:
    colours = {"R": 10, "G": 20, "B": 40}
    tile = [[colours[c] for c in pattern.name[:2]], [colours[c] for c in pattern.name[2:]]]
    image = np.tile(np.array(tile, dtype), (3, 4))
    frame = normative.read(encode(image, attributes={"ColorMode": 1, "BayerPattern": int(pattern)}))
    assert (frame.color_mode, frame.bayer_pattern) == (ColorMode.BAYER, pattern)
    rgb = frame.to_rgb()
    assert (rgb.shape, rgb.dtype) == ((6, 8, 3), np.dtype(dtype))
    assert all((rgb[:, :, c] == value).all() for c, value in enumerate(colours.values()))
    assert (frame.to_mono() == (23 if dtype != "f" else np.float32(70 / 3))).all()


def test_bayer_is_bilinear() -> None:
    image = np.zeros((4, 4), np.uint16)
    image[2, 2] = 400  # a red pixel
    rgb = normative.read(encode(image, attributes={"ColorMode": 1, "BayerPattern": 0})).to_rgb()
    red = rgb[:, :, 0]
    assert red.tolist() == [[0, 0, 0, 0], [0, 100, 200, 200], [0, 200, 400, 400], [0, 200, 400, 400]]
    assert not rgb[:, :, 1:].any()


def yuv_of(rgb: list[int]) -> list[float]:
    """ITU-R BT.601, full range."""
    r, g, b = rgb
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return [y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402]


@pytest.mark.parametrize("order", ["uyvy", "yuyv"])
@pytest.mark.parametrize("mode", [ColorMode.YUV444, ColorMode.YUV422, ColorMode.YUV411])
def test_yuv(mode: ColorMode, order: Any) -> None:
    pixel = [200, 100, 50]
    y, u, v = (round(x) for x in yuv_of(pixel))
    group = {
        (ColorMode.YUV444, "uyvy"): [u, y, v],
        (ColorMode.YUV444, "yuyv"): [y, u, v],
        (ColorMode.YUV422, "uyvy"): [u, y, v, y],
        (ColorMode.YUV422, "yuyv"): [y, u, y, v],
        (ColorMode.YUV411, "uyvy"): [u, y, y, v, y, y],
        (ColorMode.YUV411, "yuyv"): [y, y, u, y, y, v],
    }[mode, order]
    width = {ColorMode.YUV444: 1, ColorMode.YUV422: 2, ColorMode.YUV411: 4}[mode] * 3
    image = np.tile(np.array(group, np.uint8), (5, 3))
    frame = normative.read(encode(image, color_mode=mode))
    assert frame.axes == "yb"
    rgb = frame.to_rgb(yuv=order)
    assert (rgb.shape, rgb.dtype) == ((5, width, 3), np.uint8)
    assert abs(rgb.astype(int) - pixel).max() <= 2
    assert (frame.to_mono(yuv=order) == y).all()
    # Drivers differ in how they tell the dimensions.
    if mode == ColorMode.YUV422:
        deep = normative.read(encode(image.reshape(5, -1, 2), color_mode=mode))
        assert deep.axes == "yxb"
        assert np.array_equal(deep.to_rgb(yuv=order), rgb)


def test_modes_that_do_not_fit() -> None:
    for array, mode, text in (
        (np.zeros((4, 5), "B"), 2, "RGB1 with dimensions"),
        (np.zeros((4, 5, 4), "B"), 2, "RGB1 with dimensions"),
        (np.zeros((4, 5, 3), "B"), 4, "RGB3 with dimensions"),
        (np.zeros((4, 5, 3), "B"), 0, "colour mode MONO with dimensions"),
        (np.zeros(4, "B"), 0, "colour mode MONO with dimensions"),
        (np.zeros((4, 5), "B"), 99, "colour mode 99 with dimensions"),
        (np.zeros((4, 5), "B"), -1, "colour mode -1 with dimensions"),
        (np.zeros((4, 5), "B"), 6, "lines of 5 bytes"),
        (np.zeros((4, 4), "H"), 6, "bytes expected"),
        (np.zeros((4, 5, 3), "B"), 1, "colour mode BAYER with dimensions"),
    ):
        frame = normative.read(encode(array, color_mode=mode))
        assert frame.color_mode == mode
        with pytest.raises(FrameError, match=text):
            frame.to_rgb()
        if (array.ndim, mode) != (2, 0):
            with pytest.raises(FrameError, match=text):
                frame.to_mono()
    frame = normative.read(encode(np.zeros((2, 2), "B"), attributes={"ColorMode": 1, "BayerPattern": 9}))
    assert frame.bayer_pattern == 9
    with pytest.raises(FrameError, match="unknown Bayer pattern 9"):
        frame.to_rgb()
    frame = normative.read(encode(np.zeros((2, 3), "B"), color_mode=5))
    with pytest.raises(ValueError, match="the order of YUV"):
        frame.to_rgb(yuv="vyuy")  # type: ignore[arg-type]


def test_color_modes_of_any_integer_type() -> None:
    """ADCore on pvxs sends int64 (ADCore #561)."""
    for kind, mode in (("int64", 3), ("uint8", 3), ("string", 0), ("double", 0)):
        value = encode(np.zeros((4, 3, 5), "B"), color_mode=None)
        value["attribute"] = [{"name": "ColorMode", "value": AnyValue(kind, "3" if kind == "string" else 3)}]
        assert Frame(value).color_mode == mode


# --- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ([-1], "a dimension of size -1"),
        ([-1, -12], "a dimension of size"),
        ([2**31 - 1] * 4, "are too large"),
        ([2**31 - 1] * 4 + [0], "are too large"),
        ([65536, 65536], "need 4294967296 elements, 12 found"),
        ([1] * 33, "33 dimensions: more than 32"),
        ([1] * 5000, "5000 dimensions"),
        ([13], "need 13 elements, 12 found"),
        ([None, 3], "a dimension without a size"),
    ],
)
@pytest.mark.parametrize("codec", ["", "lz4"])
def test_hostile_dimensions(sizes: list[Any], text: str, codec: str) -> None:
    value = frame_value(np.zeros(12, "B"), [12], codec=codec, parameters=AnyValue("int32", 5))
    value["dimension"] = [None if size is None else {"size": size} for size in sizes]
    tracemalloc.start()
    with pytest.raises(FrameError, match="lz4|more than" if codec and "elements" in text else text):
        Frame(value).decode()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("codec", [*LOSSLESS, "jpeg"])
def test_bombs(library: Any, codec: str) -> None:
    """The dimensions claim 900 MB: nothing is made for data that cannot hold them; and never more than max_bytes."""
    shape = (30_000, 30_000)
    honest = np.zeros((10, 10), "B")
    packed = library.jpeg8_encode(honest) if codec == "jpeg" else BY_HAND[codec](honest)
    frame = Frame(compressed(codec, packed, shape, "B"))
    tracemalloc.start()
    with pytest.raises(FrameError, match=codec):
        frame.decode()
    with pytest.raises(FrameError, match="more than max_bytes, 1000"):
        Frame(compressed(codec, packed, (1001,), "B"), max_bytes=1000)
    with pytest.raises(FrameError, match="more than max_bytes, 1073741824"):
        Frame(compressed(codec, packed, (2**30 + 1,), "B"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("codec", LOSSLESS)
def test_more_or_less_than_the_dimensions_allow(library: Any, codec: str) -> None:
    image = pixels((40, 50), "H")
    packed = BY_HAND[codec](image)
    for shape in ((39, 50), (41, 50), (40, 49), (8,), (2000, 2)):
        guard = np.full(int(np.prod(shape)) + 64, 0x5A5A, np.uint16)
        frame = Frame(compressed(codec, packed, shape, "H"))
        with pytest.raises(FrameError, match=codec):
            frame.decode(guard[32:-32])
        assert (guard[:32] == 0x5A5A).all()
        assert (guard[-32:] == 0x5A5A).all()


@pytest.mark.parametrize(
    "name", ["gzip", "LZ4", "lz4 ", "x" * 100_000, "__class__", "../../lib", "\udcff", "\0"]
)
def test_hostile_codec_names(name: str) -> None:
    value = compressed(name, b"abc", (3,), "B")
    with pytest.raises(FrameError, match="unknown codec") as caught:
        Frame(value)
    assert len(str(caught.value)) < 250
    assert "jpeg, zlib, blosc, lz4, lz4hdf5, bslz4 are known" in str(caught.value)


@pytest.mark.parametrize("size", [-1, 13, 2**62, -(2**63)])
def test_hostile_sizes(size: int) -> None:
    with pytest.raises(FrameError, match=f"compressedSize {size}, but 12 bytes"):
        Frame(compressed("lz4", bytes(12), (3,), "B", compressed=size))
    with pytest.raises(FrameError, match=f"uncompressedSize {size}"):
        Frame(compressed("lz4", bytes(12), (3,), "B", uncompressed=size))


def test_only_compressed_size_bytes_count(library: Any) -> None:
    image = pixels((5, 6), "H")
    packed = lz4_literals(image.tobytes())
    value = compressed("lz4", packed + b"left over", (5, 6), "H", compressed=len(packed))
    assert np.array_equal(Frame(value).data, image)
    # ADEiger and pvapy put them into other members.
    signed = frame_value(
        np.frombuffer(packed, np.int8),
        [6, 5],
        member="byteValue",
        codec="lz4",
        parameters=AnyValue("int32", 6),
    )
    assert np.array_equal(Frame(signed).data, image)


def test_heads_that_lie(library: Any) -> None:
    image = pixels((100,), "B")
    heads = [
        ("blosc", struct.pack("<BBBBIII", 2, 1, 2, 1, 2**31, 100, 116), "2147483648 bytes where"),
        ("blosc", struct.pack("<BBBBIII", 2, 1, 2, 1, 100, 100, 2**32 - 1), "4294967295 bytes expected"),
        ("blosc", struct.pack("<BBBBIII", 5, 1, 2, 1, 100, 100, 116), "format 5 is not of Blosc 1"),
        ("blosc", b"\2\1", "16 bytes expected at byte 0, 2 left"),
        ("lz4hdf5", struct.pack(">QI", 2**63, 100), "9223372036854775808 bytes where"),
        ("lz4hdf5", struct.pack(">QI", 100, 0), "blocks of 0 bytes"),
        ("lz4hdf5", struct.pack(">QI", 100, 1), "blocks of 1 bytes"),
        ("lz4hdf5", struct.pack(">QII", 100, 100, 2**32 - 1), "4294967295 bytes expected"),
        ("lz4hdf5", b"", "12 bytes expected"),
        ("bslz4", struct.pack(">I", 2**32 - 1), "4294967295 bytes expected"),
        ("bslz4", struct.pack(">QI", 100, 7), "blocks of 7 bytes"),
        ("bslz4", struct.pack(">QI", 100, 8), "blocks of 8 bytes"),
        ("bslz4", b"\0", "cannot hold|bytes expected"),
        ("jpeg", b"\xff\xd8", "4 bytes expected"),
        ("jpeg", b"\xff\xd8\xff\xda\0\0\0\0", "no size before the data"),
        ("jpeg", b"GIF89a", "no JPEG file"),
        ("jpeg", b"\xff\xd8ABCD", "marker expected at byte 2"),
        ("jpeg", b"\xff\xd8" + b"\xff" * 50, "bytes expected"),
        ("jpeg", b"\xff\xd8\xff\xc0\0\x11\x0c\0\x0a\0\x0a\1", "12 bits a sample"),
        (
            "jpeg",
            b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3",
            "65535 × 65535 × 3 where the dimensions are",
        ),
        ("jpeg", b"\xff\xd8\xff\xc0\0\x11\x08\0\x0a\0\x0a\4", "10 × 10 × 4 where the dimensions are"),
        ("zlib", b"\0\0\0\0", "zlib"),
        ("zlib", zlib.compress(bytes(100))[:-1], "zlib"),
        ("lz4", b"\xff" * 30, "lz4"),
        ("lz4", b"", "cannot hold"),
    ]
    for codec, head, text in heads:
        shape = (10, 10) if codec == "jpeg" else image.shape
        value = compressed(codec, head, shape, "B", compressed=0)
        with pytest.raises(FrameError, match=text):
            Frame(value).decode()


@pytest.mark.parametrize("codec", [*LOSSLESS, "jpeg"])
def test_damaged_data(library: Any, codec: str) -> None:
    """Cut short anywhere, and with bytes flipped: the array or FrameError, no other error, nothing written outside."""
    image = smooth(24, 32)[:, :, 0].copy() if codec == "jpeg" else pixels((24, 40), "H")
    made = ndarray.encode(image, codec=codec)
    packed = made["value"].value.tobytes()
    rng = np.random.default_rng(1)
    samples = [packed[:n] for n in range(0, len(packed), max(1, len(packed) // 50))]
    for _ in range(300):
        broken = bytearray(packed)
        for at in rng.integers(0, len(broken), rng.integers(1, 4)):
            broken[at] = rng.integers(0, 256)
        samples.append(bytes(broken))
    guard = np.full(image.size + 128, 0x5A, image.dtype)
    for sample in samples:
        frame = Frame(compressed(codec, sample, image.shape, image.dtype))
        try:
            frame.decode(guard[64:-64])
        except FrameError:
            pass
        assert (guard[:64] == 0x5A).all()
        assert (guard[-64:] == 0x5A).all()


def test_blocks_without_end_take_no_time(library: Any) -> None:
    """Tiny blocks would keep the interpreter busy."""
    data = struct.pack(">QI", 1 << 20, 1) + b"\0\0\0\1x" * (1 << 20)
    began = time.process_time()
    with pytest.raises(FrameError, match="blocks of 1 bytes"):
        Frame(compressed("lz4hdf5", data, (1 << 20,), "B")).decode()
    assert time.process_time() - began < 10


def test_structures_that_are_no_frames() -> None:
    for members, text in (
        ({}, "no field"),
        ({"value": "any"}, "no field"),
        ({"value": "string", "dimension": "int32"}, "`dimension` is no array"),
        ({"value": "string", "dimension": "any[]"}, "no numeric array"),
    ):
        with pytest.raises(FrameError, match=text):
            normative.read(Value(FieldDesc.structure("epics:nt/NTNDArray:1.0", members)))
    plain = FieldDesc.structure(
        "epics:nt/NTNDArray:1.3", value="uint16[]", dimension=NTNDArray().type["dimension"]
    )
    frame = normative.read(Value(plain, {"value": [1, 2, 3, 4], "dimension": [{"size": 2}, {"size": 2}]}))
    assert frame.data.tolist() == [[1, 2], [3, 4]]
    assert (frame.unique_id, frame.data_timestamp_ns, len(frame.attributes), frame.codec) == (0, 0, 0, "")
    strange = FieldDesc.structure(
        "epics:nt/NTNDArray:1.0",
        value="uint8[]",
        dimension=NTNDArray().type["dimension"],
        codec="string",
        uniqueId="double",
        attribute=FieldDesc.structure("", name="int32").array(),
    )
    frame = normative.read(
        Value(strange, {"value": [1], "uniqueId": float("nan"), "attribute": [{"name": 1}, None]})
    )
    assert (frame.unique_id, dict(frame.attributes), frame.color_mode) == (0, {}, 0)


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    image = pixels((10, 20), "B")
    for codec in ("blosc", "lz4", "lz4hdf5", "bslz4"):
        frame = Frame(compressed(codec, BY_HAND[codec](image), image.shape, "B"))
        with pytest.raises(
            FrameError, match=rf"codec '{codec}' needs imagecodecs: pip install 'pvafast\[codecs\]'"
        ):
            _ = frame.data
        with pytest.raises(FrameError, match="needs imagecodecs"):
            encode(image, codec=codec)
    # zlib is part of Python.
    packed = zlib.compress(image.tobytes())
    assert np.array_equal(Frame(compressed("zlib", packed, image.shape, "B")).data, image)
    assert np.array_equal(normative.read(encode(image, codec="zlib")).data, image)
    for broken in (packed[:-1], packed[:-5], b"\0" * 20, zlib.compress(bytes(300)), zlib.compress(bytes(10))):
        with pytest.raises(FrameError, match="zlib"):
            _ = Frame(compressed("zlib", broken, image.shape, "B")).data
    wrong_sum = packed[:-1] + bytes([packed[-1] ^ 1])
    with pytest.raises(FrameError, match="zlib"):
        _ = Frame(compressed("zlib", wrong_sum, image.shape, "B")).data


# --- the way back -----------------------------------------------------------------------------------------------------


@given(
    hnp.arrays(
        st.sampled_from(DTYPES),
        hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=9),
        fill=st.nothing(),
    ),
    st.sampled_from(["", *HERE]),
    st.sampled_from(["pvxs", "pvdata"]),
    st.sampled_from(["little", "big"]),
    st.booleans(),
)
def test_round_trips(image: NDArray, codec: str, style: Any, order: Any, turned: bool) -> None:
    image = image.T if turned else image
    value = sent(NTNDArray(style=style).wrap(image, codec=codec, unique_id=5, color_mode=None), order)
    frame = normative.read(value)
    assert (frame.shape, frame.dtype, frame.codec) == (image.shape, image.dtype, codec)
    assert frame.data.tobytes() == np.ascontiguousarray(image).tobytes()
    again = normative.read(sent(frame.to_value(codec=codec and "zlib")))
    assert again.data.tobytes() == frame.data.tobytes()
    assert again.dimensions == frame.dimensions
    assert value["uncompressedSize"] == image.nbytes
    assert value["compressedSize"] == value["value"].value.nbytes
    assert [one["size"] for one in value["dimension"]] == list(image.shape[::-1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_has_its_member(dtype: np.dtype[Any]) -> None:
    """WIRE: booleanValue, byteValue, ..., and their selectors."""
    names = [
        *("boolean", "byte", "short", "int", "long", "ubyte", "ushort", "uint", "ulong", "float", "double")
    ]
    value = encode(pixels((2, 3), dtype))
    assert value["value"].name == f"{names[SCALAR_TYPE[dtype]]}Value"
    assert value["codec"].to_dict() == {"name": "", "parameters": None}
    packed = encode(pixels((2, 3), dtype), codec="zlib")
    assert packed["value"].name == "ubyteValue"
    assert packed["codec.parameters"] == AnyValue("int32", SCALAR_TYPE[dtype])
    # numpy's other type of that size ("long" and "longlong" on Linux), and the other byte order.
    for other in (dtype.newbyteorder("S"), np.dtype(dtype.char.replace("q", "l").replace("Q", "L"))):
        if other.itemsize == dtype.itemsize:
            assert np.array_equal(
                normative.read(encode(pixels((2, 3), dtype).astype(other))).data, pixels((2, 3), dtype)
            )


def test_color_modes_are_guessed() -> None:
    for shape, mode in (
        ((4, 5), 0), ((4, 5, 3), 2), ((4, 3, 5), 3), ((3, 4, 5), 4), ((3, 3, 3), 2), ((4, 5, 6), None), ((5,), None)
    ):  # fmt: skip
        attributes = normative.read(encode(np.zeros(shape, "B"))).attributes
        assert attributes.get("ColorMode") == mode
    assert normative.read(encode(np.zeros((4, 5), "B"), attributes={"ColorMode": 1})).color_mode == 1
    assert "ColorMode" not in normative.read(encode(np.zeros((4, 5), "B"), color_mode=None)).attributes


def test_jpeg_of_all_rgb_modes(library: Any) -> None:
    rgb = smooth(40, 56)
    for axes in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
        value = encode(rgb.transpose(axes), codec="jpeg", options={"quality": 95})
        assert library.jpeg8_decode(value["value"].value.tobytes()).shape == (40, 56, 3)
        assert abs(normative.read(value).to_rgb().astype(int) - rgb).max() < 20
    small, large = (encode(rgb, codec="jpeg", options={"quality": q})["compressedSize"] for q in (20, 95))
    assert small < large
    for wrong in (np.zeros((4, 5), "H"), np.zeros((4, 5, 6), "B"), np.zeros(5, "B")):
        with pytest.raises(FrameError, match="jpeg takes 8-bit Mono and RGB images"):
            encode(wrong, codec="jpeg", color_mode=ColorMode.RGB1 if wrong.ndim == 1 else None)


def test_options_of_codecs(library: Any) -> None:
    image = pixels((64, 64), "H")
    for codec, options in (
        ("zlib", {"level": 0}),
        ("blosc", {"compressor": "zstd", "level": 9, "shuffle": "byte"}),
        ("blosc", {"compressor": "snappy", "shuffle": "none"}),
        ("lz4hdf5", {"block": 1000}),
    ):
        assert np.array_equal(normative.read(encode(image, codec=codec, options=options)).data, image)
    with pytest.raises(TypeError):
        encode(image, codec="zlib", options={"speed": 1})
    with pytest.raises(ValueError, match="shuffle must be one of none, byte, bit"):
        encode(image, codec="blosc", options={"shuffle": "yes"})
    with pytest.raises(FrameError, match="unknown codec 'gzip'"):
        encode(image, codec="gzip")


def test_what_is_no_frame() -> None:
    for wrong in (
        np.zeros((2, 2), complex),
        np.array([["a"]]),
        np.array([None]),
        np.zeros(2, "f2"),
        np.zeros(2, "M8[s]"),
    ):
        with pytest.raises(EncodeError, match=r"holds no .* at `value`"):
            encode(wrong)
    with pytest.raises(EncodeError, match="an array without axes"):
        encode(np.float64(1))
    with pytest.raises(EncodeError, match=r"sizes \[3, 2\] for an array of shape \(3, 2\)"):
        encode(np.zeros((3, 2)), dimensions=[Dimension(3), Dimension(2)])
    with pytest.raises(RangeError):
        encode(np.zeros(2), unique_id=2**31)
    assert normative.read(encode([[1, 2], [3, 4]])).data.dtype == np.int64


def test_a_frame_goes_back_as_it_came() -> None:
    value = NTNDArray().wrap(
        pixels((5, 6), "H"),
        unique_id=9,
        timestamp_ns=123,
        data_timestamp=(4, 5),
        severity=2,
        message="hot",
        dimensions=[Dimension(6, 1, 60, 2, True), Dimension(5, 2, 50, 3)],
        attributes={"T": normative.Attribute(name="T", value=3.5, source="pv", source_type=2, tags=("a",))},
    )
    again = Frame(value).to_value()
    assert again == value
    packed = Frame(Frame(value).to_value(codec="zlib"))
    assert packed.codec == "zlib"
    assert Frame(packed.to_value()).raw == value


# --- pvapy ------------------------------------------------------------------------------------------------------------


@pytest.mark.interop
@pytest.mark.parametrize("codec", ["blosc", "lz4", "bslz4"])
def test_against_the_decompression_of_pvapy(library: Any, codec: str) -> None:
    """What its utility makes of the bytes; frames made by the libraries that it uses, and by ours."""
    utility = pytest.importorskip("pvapy.utility.adImageUtility").AdImageUtility
    pva = pytest.importorskip("pvaccess")
    module = pytest.importorskip({"blosc": "blosc", "lz4": "lz4.block", "bslz4": "bitshuffle"}[codec])
    decompress = utility.getDecompressor(codec)
    for dtype, number in ((d, n) for d, n in SCALAR_TYPE.items() if d.kind != "b"):
        kind = getattr(pva, corpus.SCALARS[FieldDesc.of(corpus_name(dtype)).format("short")].name)
        for shape in ((64, 65), (3, 7), (300, 211)):
            image = pixels(shape, dtype)
            if codec == "blosc":
                made = module.compress(image.tobytes(), typesize=dtype.itemsize)
            elif codec == "lz4":
                made = module.compress(image.tobytes(), store_size=False)
            else:
                made = module.compress_lz4(image, 0).tobytes()
            ours = encode(image, codec=codec)
            assert ours["codec.parameters"].value == number
            for packed in (np.frombuffer(made, np.uint8), ours["value"].value):
                theirs = decompress(packed, kind, image.nbytes)
                frame = Frame(compressed(codec, packed.tobytes(), shape, dtype))
                assert np.array_equal(theirs.reshape(shape), image)
                assert np.array_equal(frame.data, image)


def corpus_name(dtype: np.dtype[Any]) -> str:
    return {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)


@pytest.mark.interop
def test_every_compressor_of_the_blosc_library() -> None:
    blosc = pytest.importorskip("blosc")
    pytest.importorskip("imagecodecs")
    for dtype in DTYPES:
        image = pixels((100, 130), dtype)
        for name in blosc.compressor_list():
            for shuffle in (blosc.NOSHUFFLE, blosc.SHUFFLE, blosc.BITSHUFFLE):
                packed = blosc.compress(image.tobytes(), typesize=dtype.itemsize, cname=name, shuffle=shuffle)
                assert np.array_equal(Frame(compressed("blosc", packed, image.shape, dtype)).data, image)
