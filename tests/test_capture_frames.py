"""`pvafast decode --frames`: the frames of a capture as files."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpus
from pvafast import FieldDesc, Value, ndarray
from pvafast.capture import FrameFiles, read
from pvafast.capture.frames import safe_name
from pvafast.cli import main
from test_summary import NOW, Chat, capture

RAMP = np.arange(24, dtype=np.uint16).reshape(4, 6)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """run(chat or bytes, argument...): (exit status, standard output, standard error); frames go to tmp_path/out."""

    def call(conversation: Chat | bytes, *arguments: str) -> tuple[int, str, str]:
        file = tmp_path / "capture.pcap"
        file.write_bytes(conversation if isinstance(conversation, bytes) else capture(conversation))
        status = main(["decode", "--frames", str(tmp_path / "out"), *arguments, str(file)])
        out, err = capfd.readouterr()
        return status, out, err

    return call


def camera(*values: Value, name: str = "CAM") -> Chat:
    """Subscribed at 0.02 s, an update a second from 1 s on."""
    chat = Chat().open().create(name).subscribe(type=ndarray.encode(RAMP).type)
    for i, value in enumerate(values):
        chat.update(1 + i, value)
    return chat


def index(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file())


def test_frames_of_a_monitor(run: Any, tmp_path: Path) -> None:
    """The numbers of the source repeat; an update without pixels is no frame."""
    frames = [
        ndarray.encode(RAMP + n, unique_id=7 + n // 2, codec="zlib" if n else "", timestamp=NOW + n)
        for n in range(3)
    ]
    alarm = frames[2].copy()
    alarm.unmark()
    alarm["alarm.severity"] = 1
    status, _, err = run(camera(*frames, alarm))
    out = tmp_path / "out"
    assert (status, err) == (0, f"pvafast: 3 frames in {out}\n")
    names = ["CAM/000001-7.npy", "CAM/000002-7.npy", "CAM/000003-8.npy"]
    assert files(out) == [*names, "index.csv"]
    for n, (name, row) in enumerate(zip(names, index(out), strict=True)):
        made = np.load(out / name)
        assert made.dtype == np.uint16
        assert np.array_equal(made, RAMP + n)
        assert row == {
            "file": name, "pv": "CAM", "received": f"{NOW + 1 + n}.000000", "uniqueId": str(7 + n // 2),
            "timeStamp": f"{NOW + n}.000000000", "dataTimeStamp": "", "dtype": "uint16",
            "shape": "4x6", "axes": "yx", "codec": "zlib" if n else "",
        }  # fmt: skip


def test_frames_that_were_got(run: Any, tmp_path: Path) -> None:
    """Each type of the union, as p4p sent them: six rows of eight."""
    status, _, _ = run(corpus.sessions()["p4p_ndarray_types"].files["capture.pcap"])
    assert status == 0
    made = {row["dtype"]: np.load(tmp_path / "out" / row["file"]) for row in index(tmp_path / "out")}
    assert set(made) == {
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64",
    }  # fmt: skip
    for dtype, array in made.items():
        assert array.shape == (6, 8)
        assert array.dtype == dtype


@pytest.mark.parametrize("mode", ["RGB1", "RGB2", "RGB3"])
def test_tiff_of_colours(run: Any, tmp_path: Path, mode: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    image = np.random.default_rng(5).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    turned = image.transpose({"RGB1": (0, 1, 2), "RGB2": (0, 2, 1), "RGB3": (2, 0, 1)}[mode])
    value = ndarray.encode(turned, color_mode=ndarray.ColorMode[mode], unique_id=3, timestamp=NOW)
    status, _, _ = run(camera(value), "--frames-format", "tiff")
    assert status == 0
    with tifffile.TiffFile(tmp_path / "out" / "CAM" / "000001-3.tiff") as made:
        (page,) = made.pages
        assert page.photometric.name == "RGB"
        assert np.array_equal(page.asarray(), image)
        told = made.shaped_metadata[0]
        assert (told["pv"], told["uniqueId"], told["timeStamp"]) == ("CAM", 3, NOW * 10**9)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float32", "float64"])
def test_tiff_of_numbers(run: Any, tmp_path: Path, dtype: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    image = (RAMP % 2 if dtype == "bool" else RAMP).astype(dtype)
    status, _, _ = run(camera(ndarray.encode(image, unique_id=1)), "--frames-format", "tiff")
    assert status == 0
    made = tifffile.imread(tmp_path / "out" / "CAM" / "000001-1.tiff")
    assert np.array_equal(made, image)
    assert made.dtype == dtype


def test_a_tiff_whose_colour_mode_is_wrong(run: Any, tmp_path: Path) -> None:
    """Two axes, said to be RGB: written as they are."""
    tifffile = pytest.importorskip("tifffile")
    value = ndarray.encode(RAMP, attributes={"ColorMode": 2}, color_mode=None)
    status, _, _ = run(camera(value), "--frames-format", "tiff")
    assert status == 0
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "CAM" / "000001-0.tiff"), RAMP)


@pytest.mark.parametrize(
    "options", [[], ["--json"], ["--summary"], ["--summary", "--pv", "CAM"], ["--values"]]
)
def test_frames_beside_what_is_shown(
    run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """The lines, the JSON and the summary are the same as without."""
    chat = camera(*(ndarray.encode(RAMP, unique_id=n) for n in (1, 2)))
    status, out, _ = run(chat, *options)
    assert status == 0
    assert len(files(tmp_path / "out")) == 3
    main(["decode", *options, str(tmp_path / "capture.pcap")])
    assert capfd.readouterr().out == out != ""


def test_filters_hold_for_frames(run: Any, tmp_path: Path) -> None:
    status, _, err = run(camera(ndarray.encode(RAMP)), "--pv", "OTHER:*")
    assert (status, err) == (0, f"pvafast: 0 frames in {tmp_path / 'out'}\n")
    assert files(tmp_path / "out") == ["index.csv"]


def test_frames_that_cannot_be_read(run: Any, tmp_path: Path) -> None:
    unknown, damaged, wrong, right = (ndarray.encode(RAMP, codec=codec) for codec in ("", "zlib", "", ""))
    unknown["codec.name"] = "rot13"
    data = np.array(damaged["value"].value)
    data[5:] ^= 0x55
    damaged["value"] = type(damaged["value"])(damaged["value"].name, data)
    wrong["dimension"][0]["size"] = 7000
    for value in (unknown, damaged, wrong):
        value.mark()
    status, _, err = run(camera(unknown, damaged, wrong, right, wrong), "--summary")
    first, *reasons = err.splitlines()
    assert status == 1
    assert first == f"pvafast: 1 frame in {tmp_path / 'out'}"
    assert len(reasons) == 3
    assert reasons[0].startswith("pvafast: CAM: 1 frame not written: unknown codec 'rot13'")
    assert reasons[1].startswith("pvafast: CAM: 1 frame not written: zlib")
    assert reasons[2] == (
        "pvafast: CAM: 2 frames not written: dimensions 7000 × 4 need 28000 elements, 24 found"
    )
    assert files(tmp_path / "out") == ["CAM/000001-0.npy", "index.csv"]


def test_a_library_that_is_missing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs")
    value = ndarray.encode(RAMP, codec="lz4")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    status, _, err = run(camera(value))
    assert status == 1
    assert "1 frame not written: codec 'lz4' needs imagecodecs: pip install 'pvafast[codecs]'" in err
    monkeypatch.setitem(sys.modules, "tifffile", None)
    status, out, err = run(camera(value), "--frames-format", "tiff")
    assert (status, out, err) == (2, "", "pvafast: TIFF needs tifffile: pip install 'pvafast[tiff]'\n")


def test_the_folder_must_be_empty(run: Any, tmp_path: Path) -> None:
    chat = camera(ndarray.encode(RAMP))
    (tmp_path / "out").mkdir()
    assert run(chat)[0] == 0
    status, out, err = run(chat)
    assert (status, out, err) == (2, "", f"pvafast: {tmp_path / 'out'} is not empty\n")
    (tmp_path / "out" / "CAM" / "000001-0.npy").unlink()
    with pytest.raises(FileExistsError):
        FrameFiles(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("BL1:cam1:Image", "BL1_cam1_Image"),
        ("../../etc/passwd", "etc_passwd"),
        ("/", "PV"),
        ("..", "PV"),
        ("", "PV"),
        ("-rf", "rf"),
        (".hidden", "hidden"),
        ("CON", "_CON"),
        ("com1.x", "_com1.x"),
        ("conveyor", "conveyor"),
        ("a\0b\nc\\d", "a_b_c_d"),
        ("größe\udcff", "gr_e"),
        ("x" * 500, "x" * 100),
    ],
)
def test_names_of_folders(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_names_that_look_alike_have_folders_of_their_own(run: Any, tmp_path: Path) -> None:
    type = ndarray.encode(RAMP).type
    chat = Chat().open()
    names = ["A:B", "A_B", "a/b", "../A:B", "index.csv"]
    for n, name in enumerate(names, 1):
        chat.create(name, n, at=n).subscribe(n, n, type=type, at=n + 0.1)
        chat.update(n + 0.2, ndarray.encode(RAMP + n), ioid=n)
    status, _, _ = run(chat)
    assert status == 0
    rows = index(tmp_path / "out")
    assert [row["pv"] for row in rows] == names
    folders = [row["file"].partition("/")[0] for row in rows]
    assert folders == ["A_B", "A_B-2", "a_b-3", "A_B-4", "index.csv-2"]
    for n, row in enumerate(rows, 1):
        assert np.load(tmp_path / "out" / row["file"])[0, 0] == n
    assert {path.name for path in tmp_path.iterdir()} == {"capture.pcap", "out"}


def test_what_only_looks_like_a_frame(run: Any, tmp_path: Path) -> None:
    """The name of the type without its fields; a union that holds nothing."""
    chat = Chat().open().create("X")
    strange = FieldDesc.structure("epics:nt/NTNDArray:1.0", {"value": "double"})
    chat.subscribe(type=strange).update(1, Value(strange, {"value": 1.0}))
    empty = Value(ndarray.encode(RAMP).type)
    empty.mark("")
    chat.create("Y", 2, at=2).subscribe(2, 2, type=empty.type, at=3).update(4, empty, ioid=2)
    status, _, err = run(chat)
    assert (status, err) == (0, f"pvafast: 0 frames in {tmp_path / 'out'}\n")


@pytest.mark.parametrize("form", ["npy", "tiff"])
def test_damaged_captures_write_what_can_be_read(tmp_path: Path, form: Any) -> None:
    if form == "tiff":
        pytest.importorskip("tifffile")
    rng = random.Random(8)
    frames = [ndarray.encode(RAMP, unique_id=n, codec=codec) for n, codec in enumerate(("", "zlib", ""))]
    whole = capture(camera(*frames))
    start = whole.index(b"NTNDArray")
    written = failed = 0
    for n in range(150):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(start, len(raw))] = rng.choice((0, 1, 3, 0x7F, 0xFE, 0xFF, rng.randrange(256)))
        file = tmp_path / f"{n}.pcap"
        file.write_bytes(raw)
        with FrameFiles(tmp_path / f"out{n}", form) as out:
            for record in read(file):
                out.add(record)
        assert len(files(out.folder)) == out.written + 1
        written += out.written
        failed += sum(out.failed.values())
    assert written > 150
    assert failed > 0
