"""benchmarks/: what compare and report make of results. The results are made up, so that what they say is known."""

from __future__ import annotations

import contextlib
import copy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks is in the checkout alone

from benchmarks import charts, live_client, live_server, messages, report, run  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.children import Failed  # noqa: E402
from benchmarks.compare import compare  # noqa: E402
from benchmarks.rows import Row  # noqa: E402
from benchmarks.run import load, save  # noqa: E402

VALUE = "decode: NTScalar, value + time changed"
NUMBERS = "decode: 1,000 doubles"


def figure(text: str, subject: str, *ns: float, group: str = "decode", **more: Any) -> dict[str, Any]:
    return {"group": group, "text": text, "subject": subject, "ns": list(ns), **more}


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "format": 1,
        "date": "2026-11-25T12:00:00+00:00",
        "commit": "abc1234",
        "processor": "Made up",
        "cores": 2,
        "load": [0.5, 0.5, 0.5],
        "system": "Linux x86_64",
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "pvafast": "0.1.0", "spvirit": "0.4.1"},
        "rounds": 3,
        "whole": True,
        "figures": [
            figure(VALUE, "c", 100, 100, 104, goal=240, peak=600, blocks=6, bytes=428),
            figure(VALUE, "py", 3000, 3000, 3030, goal=240),
            figure(NUMBERS, "c", 500, 500, 510, goal=400),
            figure(NUMBERS, "spvirit", 20_000, 20_000, 20_100, goal=400),
            figure("decode: 1,000 strings", "spvirit", 70_000, 70_100, 69_900),
            figure("10 of an array", "c", 80, 80, 80, group="sizes", x=80),
            figure("1,000 of an array", "c", 800, 800, 800, group="sizes", x=8000),
            figure("3 of a structure", "c", 50, 50, 50, group="fields", x=3),
            figure("30 of a structure", "c", 400, 400, 400, group="fields", x=30),
            figure("frames, 1 threads", "c", 1000, 1000, 1000, group="threads", x=1),
            figure("frames, 2 threads", "c", 500, 500, 500, group="threads", x=2),
            figure("512×512: memcpy of the same bytes", "c", 20_000, group="frames", peak=0),
            figure("512×512: no pool", "c", 50_000, group="frames", peak=1_300_000),
            figure("512×512: no pool", "py", 100_000, group="frames", peak=1_300_000),
            figure("of a Value, the shaped array", "c", 900, group="access"),
            figure("of a Value, the shaped array", "p4p", 1800, group="access"),
            figure("zlib: pvafast", "c", 2, group="decompress"),
            figure("zlib: the library's own call", "c", 1, group="decompress"),
            figure("encode: small NTScalar, the same", "c", 150, group="encode"),
            figure("an update of a batch", "c", 40, group="columns"),
            figure("gets: blocking", "c", 40_000, 50_000, 60_000, group="live"),
            figure("gets", "p4p", 30_000, 100_000, 110_000, group="live"),
        ],
    }


def times(result: dict[str, Any], factor: float, *subjects: str) -> dict[str, Any]:
    """The result, with the times of some subjects multiplied."""
    found = copy.deepcopy(result)
    for one in found["figures"]:
        if one["subject"] in subjects:
            one["ns"] = [factor * ns for ns in one["ns"]]
    return found


def changed(result: dict[str, Any], text: str, *ns: float, **more: Any) -> dict[str, Any]:
    """The result, with other times of the compiled twin in one row."""
    found = copy.deepcopy(result)
    [one] = [one for one in found["figures"] if (one["text"], one["subject"]) == (text, "c")]
    one.update(more, ns=list(ns))
    return found


def test_the_same_is_neither_slower_nor_faster(result: dict[str, Any]) -> None:
    found = compare(result, result)
    assert (found.slower, found.faster, found.gone, found.new) == ([], [], [], [])
    assert found.drift == pytest.approx(1)
    assert found.controls == 2  # those of spvirit; of p4p the version is not known


def test_what_got_slower_is_told_and_by_how_much(result: dict[str, Any]) -> None:
    found = compare(result, changed(result, VALUE, 150, 153, 147))
    [one] = found.slower
    assert (one.text, one.subject, one.before, one.after) == (VALUE, "c", 100, 150)
    assert one.ratio == pytest.approx(1.5)
    assert not found.faster
    back = compare(changed(result, VALUE, 150, 153, 147), result)
    assert [one.text for one in back.faster] == [VALUE]
    assert not back.slower


def test_a_change_within_the_noise_of_the_rounds_is_not_told(result: dict[str, Any]) -> None:
    noisy = changed(result, VALUE, 90, 150, 110)  # median 110; their spread is 27 %
    assert not compare(result, noisy).slower


def test_a_slower_machine_is_taken_out(result: dict[str, Any]) -> None:
    slow = times(result, 2, "c", "py", "spvirit", "p4p")
    found = compare(result, slow)
    assert found.drift == pytest.approx(2)
    assert not found.slower
    assert [one.text for one in compare(result, changed(slow, NUMBERS, 2000, 2000, 2000)).slower] == [NUMBERS]


def test_a_peer_of_another_version_is_no_control(result: dict[str, Any]) -> None:
    after = times(result, 2, "spvirit")
    after["versions"]["spvirit"] = "0.5"
    found = compare(result, after)
    assert (found.controls, found.drift) == (0, 1)


def test_instructions_decide_where_there_are_any(result: dict[str, Any]) -> None:
    before = changed(result, VALUE, 100, 100, 100, instructions=1000)
    assert not compare(before, changed(result, VALUE, 300, 300, 300, instructions=1005)).slower
    [one] = compare(before, changed(result, VALUE, 100, 100, 100, instructions=1020)).slower
    assert (one.unit, one.ratio) == ("instructions", pytest.approx(1.02))


def test_rows_of_one_result_only_are_named(result: dict[str, Any]) -> None:
    after = copy.deepcopy(result)
    after["figures"][0]["text"] = "another"
    found = compare(result, after)
    assert found.gone == [f"{VALUE}, c"]
    assert found.new == ["another, c"]


def test_exit_status_of_compare(
    result: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    save(result, a)
    save(changed(result, VALUE, 150, 153, 147), b)
    assert load(a) == result
    assert main(["compare", str(a), str(a)]) == 0
    capfd.readouterr()
    assert main(["compare", str(a), str(b)]) == 1
    assert "slower: 1\n" in capfd.readouterr().out


QUICK = ("--rounds", "2", "--seconds", "0.0001")
GOOD = Row("a BitSet", None, "bench_bitset", "decode", ("nts.all",))
BAD = Row("a message that there is not", None, "bench_value", "decode_update", ("nts.nothing",))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[Row]]:
    """The groups of a run: these rows alone, and nothing live but what a test puts there. caproto cannot be had."""
    pytest.importorskip("tracemalloc")  # which PyPy has not
    groups: dict[str, list[Row]] = {}
    monkeypatch.setattr("benchmarks.__main__.GROUPS", groups)
    monkeypatch.setattr(run, "GROUPS", groups)
    monkeypatch.setattr(live_client, "GROUPS", {})
    monkeypatch.setattr(live_server, "GROUPS", {})
    monkeypatch.setenv("PVAFAST_BENCH_CAPROTO", str(tmp_path / "nowhere"))
    return groups


def test_a_subject_that_fails_is_left_out_and_begins_anew(
    rows: dict[str, list[Row]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows.update(decode=[GOOD, BAD], encode=[GOOD._replace(text="another")])
    path = tmp_path / "result.json"
    assert main(["run", *QUICK, "-o", str(path), "--subjects", "py", "caproto"]) == 1
    found = load(path)
    assert [(one["text"], one["subject"], len(one["ns"])) for one in found["figures"]] == [
        *(("a BitSet", "py", 2), ("another", "py", 2)),
    ]
    assert [one.partition(":")[0] for one in found["failed"]] == ["py, a message that there is not"]
    assert not found["whole"]
    told = capfd.readouterr().err
    assert "without caproto: " in told
    assert "without py, a message that there is not: it stopped; its error is above\n" in told
    assert "nts.nothing" in told  # the error
    assert main(["report", str(path)]) == 1  # the pages are not touched
    assert "failed: py, a message that there is not" in capfd.readouterr().err
    assert main(["report", "--print", str(path)]) == 0


def test_a_subject_that_is_not_there_is_named_and_no_failure(
    rows: dict[str, list[Row]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows["decode"] = [GOOD]
    path = tmp_path / "result.json"
    assert main(["run", *QUICK, "-o", str(path), "--subjects", "caproto", "py"]) == 0
    assert [one["subject"] for one in load(path)["figures"]] == ["py"]
    assert "without caproto: " in capfd.readouterr().err


def test_figures_are_in_the_file_after_each_group(
    rows: dict[str, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    rows.update(decode=[GOOD], encode=[GOOD._replace(text="another")])
    measure = run.Run.measure

    def interrupted(self: run.Run, group: str, row: Row) -> None:
        if group == "encode":
            raise KeyboardInterrupt
        measure(self, group, row)

    monkeypatch.setattr(run.Run, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["run", *QUICK, "-o", str(path), "--subjects", "py"])
    found = load(path)
    assert [one["text"] for one in found["figures"]] == ["a BitSet"]
    assert not found["whole"]


def test_without_valgrind_times_are_kept(
    rows: dict[str, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows["decode"] = [GOOD]
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "result.json"
    assert main(["run", *QUICK, "-o", str(path), "--subjects", "py", "--instructions", "py"]) == 1
    assert load(path)["failed"] == ["py, instructions: valgrind is not installed"]
    [one] = load(path)["figures"]
    assert "instructions" not in one


LISTENS = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"


def test_a_live_peer_that_fails_takes_nothing_with_it(
    rows: dict[str, list[Row]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The first server does not start; of the second group, the child does not know the works; the third group is good."""
    rows.update(decode=[GOOD], live=[])
    size = live_server.SCALAR_BYTES
    monkeypatch.setitem(
        live_client.GROUPS, "none", (["-c", "1 / 0"], {"bare socket": (live_client.bare, ())})
    )
    monkeypatch.setitem(
        live_client.GROUPS, "unknown", (["-c", LISTENS], {"bare socket": (live_client.bare, ())})
    )
    monkeypatch.setitem(live_server.GROUPS, "updates", "scalar")
    monkeypatch.setattr(live_server, "SUBJECTS", {"py, thread": ("1 / 0",)})
    path = tmp_path / "result.json"
    assert main(["run", *QUICK, "-o", str(path), "--subjects", "py"]) == 1
    found = load(path)
    assert [(one["text"], one["subject"]) for one in found["figures"]] == [
        *(("a BitSet", "py"), ("server, updates", "socket")),
    ]
    assert max(found["figures"][-1]["ns"]) < 1e9 * size  # faster than a byte a second
    assert [one.partition(":")[0] for one in found["failed"]] == [
        *("none", "socket, client, unknown", "py, server, updates"),
    ]
    told = capfd.readouterr().err
    assert "without none: its server does not start; the error is above\n" in told
    assert "without bare socket: unknown: exit status 1; its error is above\n" in told
    assert "without py, thread: its server does not start; the error is above\n" in told


def test_a_server_that_posts_something_else_is_not_timed() -> None:
    pytest.importorskip("pvafast._c.codec")  # it is the compiled twin that is timed
    assert live_server.PVAFAST.count("[float(i) for i in range(100)]") == 1
    wrong = live_server.PVAFAST.replace("[float(i) for i in range(100)]", "[0.5]")
    for script, good in ((wrong, False), (live_server.PVAFAST, True)):
        with contextlib.nullcontext() if good else pytest.raises(Failed, match="AssertionError"):
            assert live_server.measure(script, "scalar", "asyncio", seconds=0.01) > 0


def test_a_client_that_receives_something_else_is_not_timed() -> None:
    """The replay's updates are 0, 0.5, 1..., and begin anew with each MiB of them."""
    size = len(messages.update("nts.vt"))
    assert [float(live_client.expected(i)) for i in (0, 7, (1 << 20) // size)] == [0.0, 3.5, 0.0]
    live_client.check("nts.vt", 7, 3.5)
    with pytest.raises(AssertionError):
        live_client.check("nts.vt", 7, 3.0)
    pixels = np.arange(512 * 512).reshape(512, 512) % 251
    live_client.check("nd.512", 7, SimpleNamespace(data=pixels))
    pixels[-1, -1] += 1
    with pytest.raises(AssertionError):
        live_client.check("nd.512", 7, SimpleNamespace(data=pixels))


def test_what_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"format": 0}')
    with pytest.raises(ValueError, match="no result"):
        load(path)


def test_tables(result: dict[str, Any]) -> None:
    found = report.tables(result)
    assert set(found) == {"benchmarks", "frames", "memory", "live"}
    lines = found["benchmarks"].splitlines()
    assert f"| {VALUE} | ≤ 240 | 100 | 3,000 | – | – | 30 | – | – |" in lines
    assert f"| {NUMBERS} | **≤ 400** | 500 | – | 20,000 | – | – | 40 | – |" in lines
    assert "compiled 6 blocks, 428 bytes" not in found["benchmarks"]  # those of another row
    assert f"| {VALUE} | 6, 428 | – | – | – |" in found["memory"].splitlines()
    # 512 × 512 × 2 bytes in 50 µs.
    assert "| 512×512: compiled, no pool | 20,000 | 10.49 | 2.50 | 1.3 |" in found["frames"].splitlines()
    assert "| gets | p4p | 10,000 | 100 | 0.5 |" in found["live"].splitlines()  # medians
    assert "The median of 3 rounds" in found["live"]
    assert "commit abc1234" in found["benchmarks"]


def test_pages_get_tables_between_their_markers_and_charts_beside(
    result: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- live:begin -->\nold\n<!-- live:end -->\nafter\n")
    untouched = tmp_path / "other.md"
    untouched.write_text("no markers")
    written = report.write(result, [page, untouched], tmp_path / "charts")
    text = page.read_text()
    assert text.startswith("before\n<!-- live:begin -->\n| on 127.0.0.1")
    assert text.endswith("\n<!-- live:end -->\nafter\n")
    assert "old" not in text
    assert {path.name for path in written} == {
        *("page.md", "ratios.svg", "sizes.svg", "fields.svg", "threads.svg"),
    }
    assert report.write(result, [page], tmp_path / "charts")[0].suffix == ".svg"  # the page is as it was


def without(result: dict[str, Any], *subjects: str) -> dict[str, Any]:
    """The result of a machine where these are not installed."""
    found = copy.deepcopy(result)
    found["figures"] = [one for one in found["figures"] if one["subject"] not in subjects]
    found["versions"] = {name: text for name, text in found["versions"].items() if name not in subjects}
    return found


def test_a_report_without_a_peer(result: dict[str, Any], tmp_path: Path) -> None:
    found = report.tables(without(result, "spvirit", "p4p"))
    assert set(found) == {"benchmarks", "frames", "memory", "live"}
    lines = found["benchmarks"].splitlines()
    assert f"| {NUMBERS} | **≤ 400** | 500 | – | – | – | – | – | – |" in lines
    assert f"| {VALUE} | ≤ 240 | 100 | 3,000 | – | – | 30 | – | – |" in lines
    assert "spvirit 0.4.1" not in found["benchmarks"]
    assert "p4p" not in found["live"].partition("\n\n")[0]
    alone = report.tables(without(result, "c", "py"))  # nothing to compare with
    assert f"| {NUMBERS} | ≤ 400 | – | – | 20,000 | – | – | – | – |" in alone["benchmarks"].splitlines()
    assert "| gets | p4p | 10,000 | 100 | 1 |" in alone["live"].splitlines()
    assert report.write(without(result, "spvirit", "p4p"), [], tmp_path)


GROUPS = (
    "decode",
    "encode",
    "columns",
    "frames",
    "access",
    "decompress",
    "sizes",
    "fields",
    "threads",
    "live",
)


@pytest.mark.parametrize("group", GROUPS)
def test_a_report_of_one_group(group: str, result: dict[str, Any], tmp_path: Path) -> None:
    """What there is is printed; of what belongs to several groups, the page keeps the old."""
    part = copy.deepcopy(result)
    part["figures"] = [one for one in result["figures"] if one["group"] == group]
    printed = {
        "decode": {"benchmarks", "memory"},
        **{key: {"benchmarks"} for key in ("encode", "columns")},
        **{key: {"frames"} for key in ("frames", "access", "decompress")},
        "live": {"live"},
    }.get(group, set())
    assert set(report.tables(part)) == printed
    names = ("benchmarks", "frames", "memory", "live")
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name}:begin -->\nold {name}\n<!-- {name}:end -->\n" for name in names))
    written = {path.name for path in report.write(part, [page], tmp_path / "charts")}
    placed = {"decode": {"memory"}, "live": {"live"}}.get(group, set())
    assert {name for name in names if f"\nold {name}\n" not in page.read_text()} == placed
    charts = {f"{group}.svg"} if group in ("sizes", "fields", "threads") else set()
    assert written == charts | ({"page.md"} if placed else set())


def test_comparing_results_of_different_peers(result: dict[str, Any]) -> None:
    """The drift comes from those peers that both have in the same version; what one has alone is named."""
    poor = without(result, "spvirit", "p4p")
    found = compare(poor, times(result, 2, "py"))
    assert (found.controls, found.drift) == (0, 1)
    assert {(one.text, one.ratio) for one in found.slower} == {(VALUE, 2.0), ("512×512: no pool", 2.0)}
    assert not found.gone
    assert f"{NUMBERS}, spvirit" in found.new
    assert "nothing: no peer in both" in next(iter(found.lines()))
    assert f"{NUMBERS}, spvirit" in compare(result, poor).gone
    other = times(result, 3, "p4p")
    other["versions"] |= {"spvirit": "0.5", "p4p": "4.3.0"}
    assert (
        compare(times(result, 1), other).controls == 0
    )  # of p4p one version is not known, of spvirit another
    nothing = {**result, "figures": []}
    assert compare(nothing, result).changes == []
    assert compare(result, nothing).new == []


def elements(svg: str, name: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(svg)
    return [one.attrib for one in root.iter(f"{{http://www.w3.org/2000/svg}}{name}")]


def test_bars_are_as_long_as_the_logarithm_of_a_ratio() -> None:
    svg = charts.bars("<title> & more", [("a", {"spvirit": 10.0, "caproto": 100.0}), ("b", {"spvirit": 0.1})])
    tenfold, hundredfold, tenth = (
        one for one in elements(svg, "rect") if one["height"] == "12" and float(one["y"]) > 60
    )
    assert float(hundredfold["width"]) == pytest.approx(2 * float(tenfold["width"]), abs=0.2)
    assert float(tenth["width"]) == pytest.approx(float(tenfold["width"]), abs=0.2)
    assert float(tenth["x"]) + float(tenth["width"]) == pytest.approx(float(tenfold["x"]), abs=0.2)


def test_a_power_law_is_a_straight_line_on_logarithmic_axes() -> None:
    svg = charts.lines("t", "x", "y", {"one": [(1, 10), (10, 100), (100, 1000)]})
    [line] = elements(svg, "polyline")
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, point.split(","))) for point in line["points"].split())
    assert (x1 - x0, y1 - y0) == pytest.approx((x2 - x1, y2 - y1), abs=0.2)
    assert x1 > x0
    assert y1 < y0  # up


def test_axes_that_are_not_logarithmic_begin_at_zero() -> None:
    svg = charts.lines("t", "x", "y", {"one": [(1, 1), (2, 2)]}, logarithmic=False)
    [line] = elements(svg, "polyline")
    (x0, _), (x1, _) = (tuple(map(float, point.split(","))) for point in line["points"].split())
    left = 76.0
    assert x1 - left == pytest.approx(2 * (x0 - left), abs=0.2)
    assert len(elements(svg, "circle")) == 2
