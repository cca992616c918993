"""The command line: pvafast decode. Captures are recorded ones, see corpus.py, or made by hand, see captures.py."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import corpus
import pvafast
from captures import Talk, enhanced, interface, pcap, section
from pvafast.cli import main
from test_records import SERVER_HELLO, echo

SOURCE = Path(pvafast.__file__).parents[1]


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """session(name): the path of a recorded capture."""

    def path(name: str) -> str:
        file = tmp_path / f"{name}.pcap"
        file.write_bytes(corpus.sessions()[name].files["capture.pcap"])
        return str(file)

    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    """run(argument...): (exit status, lines of standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, list[str], str]:
        status = main(["decode", *arguments])
        out, err = capfd.readouterr()
        return status, out.splitlines(), err

    return call


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "pvafast", *arguments], capture_output=True, env=environment, **options
    )


# -- lines


def test_a_line_says_when_who_what_and_of_which_pv(run: Any, session: Any) -> None:
    meta = corpus.sessions()["p4p_put_errors"].meta
    client = f"127.0.0.1:{meta['connections'][0]['client_port']}"
    status, lines, err = run(session("p4p_put_errors"))
    assert status == 0
    assert err == ""
    assert all(
        re.match(r"2026-11-21 \d\d:\d\d:\d\d\.\d{6}  \S+ → \S+  [A-Z_]+(  |$)", line) for line in lines
    )
    tails = [line.split("  ", 1)[1] for line in lines]
    reject = [
        tail for tail in tails if "  put:reject" in tail and not tail.split("  ")[1].startswith("SEARCH")
    ]
    assert [tail.split("  ", 1)[1].rstrip() for tail in reject[:2]] == [
        "CREATE_CHANNEL  put:reject  cid=305419896",
        f"CREATE_CHANNEL  put:reject  cid=305419896 sid={reject[1].rpartition('=')[2]}",
    ]
    assert reject[2:] == [
        f"{client} → 127.0.0.1:5075  PUT  put:reject  INIT all fields",
        f"127.0.0.1:5075 → {client}  PUT  put:reject  INIT epics:nt/NTScalar:1.0",
        f"{client} → 127.0.0.1:5075  PUT  put:reject  GET",
        f"127.0.0.1:5075 → {client}  PUT  put:reject  GET value=1",
        f"{client} → 127.0.0.1:5075  PUT  put:reject  value=2",
        f'127.0.0.1:5075 → {client}  PUT  put:reject  ERROR "rejected by handler: µ no"',
        f"{client} → 127.0.0.1:5075  DESTROY_REQUEST  put:reject",
    ]
    assert any(tail.endswith('ERROR "pvRequest must select at least one field"') for tail in tails)


def test_monitors_say_what_was_asked_and_what_changed(run: Any, session: Any) -> None:
    _, lines, _ = run(session("p4p_monitor_pipeline"), "--command", "monitor")
    tails = [line.split("  ")[3:] for line in lines]
    assert tails[0] == ["mon:pipe", "INIT record[pipeline=true,queueSize=4] nfree=4"]
    assert tails[1] == ["mon:pipe", "INIT epics:nt/NTScalar:1.0"]
    assert tails[2] == ["mon:pipe", "START"]
    assert tails[3] == ["mon:pipe", "value=0 and 6 more fields"]
    assert ["mon:pipe", "ACK nfree=2"] in tails


def test_search_beacon_and_handshake(run: Any, session: Any) -> None:
    _, lines, _ = run(session("udp_p4pcli_pvapysrv"))
    text = "\n".join(lines)
    assert "BEACON  tcp 127.0.0.1:26115, guid " in text
    assert "ORIGIN_TAG  received on 127.0.0.1" in text
    assert "SET_BYTE_ORDER  little-endian" in text
    assert "CONNECTION_VALIDATION  offers anonymous, ca" in text
    assert 'CONNECTION_VALIDATION  as ca {user="root", host="vm"}' in text
    assert "CONNECTION_VALIDATED  ok" in text


def test_values_and_types(run: Any, session: Any) -> None:
    _, lines, _ = run(session("p4p_monitor"), "--values", "--types", "--pv", "mon:partial")
    text = "\n".join(lines)
    assert (
        '\n    struct "epics:nt/NTScalar:1.0" {\n        double value\n        struct "alarm_t" {\n' in text
    )
    assert (
        "\n    value double = 0\n    timeStamp.secondsPastEpoch int64_t = 1700000000\n"
        "    timeStamp.nanoseconds int32_t = 123456789\n    timeStamp.userTag int32_t = 42\n"
    ) in text


def test_values_of_arrays_are_shortened(run: Any, session: Any) -> None:
    path = session("bench_ntsa")
    for arguments, shown in (((), 20), (("--max-elements", "3"), 3), (("--max-elements", "0"), 1000)):
        _, lines, _ = run(path, "--values", *arguments)
        (array, *_) = (line for line in lines if line.startswith("    value double[] = {1000}["))
        assert array.count(",") == shown - (shown == 1000)
        assert ("..." in array) == (shown < 1000)


def test_every_recorded_capture_is_shown(run: Any, session: Any) -> None:
    for name in corpus.sessions():
        for arguments in ([], ["--values", "--types"], ["--summary"]):
            status, lines, err = run(session(name), *arguments)
            assert (status, err) == (0, ""), name
            assert lines


# -- filters


def test_filters(run: Any, session: Any) -> None:
    path = session("p4p_nts")
    _, everything, _ = run(path)

    def kept(*arguments: str) -> list[str]:
        status, lines, err = run(path, *arguments)
        assert (status, err) == (0, "")
        return lines

    assert kept("--pv", "*") == [line for line in everything if "  nts:" in line]
    assert kept("--pv", "nts:int?") == [line for line in everything if "  nts:int8" in line]
    both = [line for line in everything if re.search("  nts:(int8|float)(  |$)", line)]
    assert kept("--pv", "nts:int8", "--pv", "nts:f*") == both
    assert kept("--pv", "NTS:*") == []
    assert kept("--command", "GET") == [line for line in everything if "  GET  " in line]
    assert kept("--command", "search", "--command", "SEARCH_RESPONSE") == [
        line for line in everything if "  SEARCH" in line
    ]
    assert kept("--command", "GET", "--pv", "nts:int8") == [
        line for line in everything if "  GET  nts:int8" in line
    ]
    assert kept("--host", "127.0.0.1") == everything
    assert kept("--host", "10.0.0.1") == []
    assert kept("--port", "5075") == [line for line in everything if ":5075  " in line or ":5075 →" in line]
    assert kept("--port", "5075", "--port", "26076") == everything


def test_filters_hold_for_json_and_summary(run: Any, session: Any) -> None:
    path = session("p4p_nts")
    _, lines, _ = run(path, "--json", "--pv", "nts:int8")
    assert {json.loads(line)["pv"] if isinstance(json.loads(line)["pv"], str) else json.loads(line)["pv"][0]
            for line in lines} == {"nts:int8"}  # fmt: skip
    _, lines, _ = run(path, "--summary", "--pv", "nts:int8")
    assert not any("nts:float" in line for line in lines)
    assert any("nts:int8" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--command", "GETS"],
        ["--max-elements", "-1"],
        ["--port", "x"],
        ["--json", "--summary"],
        ["--no-such"],
        [],
    ],
)
def test_wrong_usage(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["decode", *arguments, *(["x.pcap"] if arguments else [])])
    assert caught.value.code == 2
    assert "usage:" in capfd.readouterr().err


def test_help_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["decode", "--help"], ["--pv GLOB", "--command NAME", "--summary", "--json", "--max-elements", "Exit status"]),
        (["--help"], ["decode"]),
        (["--version"], [f"pvafast {pvafast.__version__}"]),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        out = capfd.readouterr().out
        assert all(word in out for word in words), out


# -- JSON


def test_json_is_ascii_and_one_object_a_line(session: Any) -> None:
    for name in ("p4p_strings", "p4p_put_errors", "p4p_anys"):
        found = command("decode", "--json", session(name))
        assert (found.returncode, found.stderr) == (0, b"")
        assert found.stdout.isascii()
        for line in found.stdout.decode().splitlines():
            record = json.loads(line)
            assert list(record)[:3] == ["time", "src", "dst"]
            assert record["direction"] in ("client", "server")


def test_json_max_elements(run: Any, session: Any) -> None:
    path = session("bench_ntsas")

    def value(*arguments: str) -> Any:
        _, lines, _ = run(path, "--json", *arguments)
        return next(
            x["value"]["value"]
            for x in map(json.loads, lines)
            if x["command"] == "MONITOR" and x.get("value")
        )

    event = corpus.sessions()["bench_ntsas"].expected[0]["events"][-1]
    strings = event["value"]["fields"]["value"]["strings"]
    digest = strings["sha256_of_u32le_len_prefixed_utf8"]
    assert value() == value("--max-elements", "999") == {"strings": 1000, "sha256": digest}
    assert len(value("--max-elements", "0")) == 1000
    assert len(value("--max-elements", "1000")) == 1000


# -- files


def test_several_files(run: Any, session: Any) -> None:
    paths = [session(name) for name in ("p4p_nts", "pvapy_rpc", "p4p_nts")]
    each = [line for path in paths for line in run(path)[1]]
    assert run(*paths) == (0, each, "")
    _, lines, _ = run("--json", *paths)
    numbers = [json.loads(line).get("connection") for line in lines]
    assert numbers[-1] == 3  # connections are counted through: 0 in the first file, 1 and 2 in the second
    _, lines, _ = run("--summary", *paths)
    assert lines


def test_standard_input_and_gzip(session: Any, tmp_path: Path) -> None:
    path = session("p4p_nts")
    plain = command("decode", path)
    assert (plain.returncode, plain.stderr) == (0, b"")
    file = Path(path).read_bytes()
    packed = tmp_path / "x.pcap.gz"
    packed.write_bytes(gzip.compress(file))
    for found in (
        command("decode", "-", input=file),
        command("decode", "-", input=gzip.compress(file)),
        command("decode", str(packed)),
    ):
        assert (found.returncode, found.stdout, found.stderr) == (0, plain.stdout, b"")


def test_a_file_cut_off_is_decoded_up_to_the_cut(run: Any, session: Any, tmp_path: Path) -> None:
    path = session("p4p_nts")
    _, whole, _ = run(path)
    file = Path(path).read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(file[: len(file) // 2])
    status, lines, err = run(str(cut))
    assert status == 1
    assert 10 < len(lines) < len(whole)
    assert err.startswith(f"pvafast: {cut}: ")
    assert "cut off" in err
    assert err.count("\n") == 1
    # Up to the message that the cut goes through.
    assert whole[: len(lines) - 1] == lines[:-1]
    cut.write_bytes(gzip.compress(file)[:-3000])
    status, lines, err = run(str(cut))
    assert status == 1
    assert lines
    assert "cut off" in err
    status, _, err = run("--summary", str(cut))
    assert status == 1
    status, lines, err = run(str(cut), path)
    assert status == 1
    assert lines[-len(whole) :] == whole


def test_a_damaged_file(run: Any, session: Any, tmp_path: Path) -> None:
    file = Path(session("p4p_nts")).read_bytes()
    bad = tmp_path / "bad.pcap"
    bad.write_bytes(file + b"\xff" * 64)
    status, lines, err = run(str(bad))
    assert status == 1
    assert len(lines) == len(run(session("p4p_nts"))[1])
    assert err.startswith(f"pvafast: {bad}: ")


def test_what_cannot_be_read(run: Any, session: Any, tmp_path: Path) -> None:
    path = session("p4p_nts")
    _, whole, _ = run(path)
    text = tmp_path / "x.txt"
    text.write_text("this is no capture, just a line of text")
    for wrong, reason in (
        (str(tmp_path / "none.pcap"), "No such file"),
        (str(text), "no pcap"),
        (str(tmp_path), "directory"),
    ):
        status, lines, err = run(wrong, path)
        assert status == 2
        assert lines == whole
        assert err.startswith("pvafast: ")
        assert reason in err
        assert err.count("\n") == 1


def test_an_unknown_link_type_is_told(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap([(1, bytes(60)), (2, bytes(60))], link=147))
    assert run(str(file)) == (1, [], f"pvafast: {file}: 2 packets of link type 147 are not understood\n")


def test_pcapng(run: Any, tmp_path: Path) -> None:
    talk = Talk().open().say(1, SERVER_HELLO).say(0, echo(3)).close()
    file = tmp_path / "x.pcapng"
    file.write_bytes(
        section() + interface() + b"".join(enhanced(frame, time) for time, frame in talk.packets)
    )
    status, lines, err = run(str(file))
    assert (status, err) == (0, "")
    assert [line.split("  ")[2] for line in lines] == ["SET_BYTE_ORDER", "CONNECTION_VALIDATION", "ECHO"]


def test_damage_in_a_stream_is_a_line(run: Any, tmp_path: Path) -> None:
    talk = Talk().open().say(1, SERVER_HELLO + echo(3, 0x40) + bytes(20)).say(1, echo(4, 0x40)).close()
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap(talk.packets))
    status, lines, err = run(str(file))
    assert (status, err) == (0, "")  # the file is whole; what is in it is told in its place
    damage = next(line for line in lines if "MALFORMED" in line)
    assert "20 bytes not decoded" in damage
    assert f"at {len(SERVER_HELLO) + 11} of the stream" in damage
    assert "ECHO" in lines[-1]


# -- output


def test_a_closed_pipe_is_quiet(session: Any) -> None:
    path = session("p4p_strings")
    shell = (
        f'"{sys.executable}" -m pvafast decode --json --max-elements 0 "{path}" "{path}" "{path}" | head -n 1'
    )
    found = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert found.stderr == b""
    assert found.stdout.count(b"\n") == 1


def test_output_in_an_encoding_without_the_arrow(session: Any) -> None:
    found = command("decode", session("p4p_put_errors"), env={"PYTHONIOENCODING": "ascii"})
    assert (found.returncode, found.stderr) == (0, b"")
    assert b"\\u2192" in found.stdout
    assert b"rejected by handler: \\xb5 no" in found.stdout


def test_control_characters_do_not_reach_the_terminal(run: Any, tmp_path: Path) -> None:
    import struct

    from test_records import app, text

    name = "X\x1b[31m\r\n\u202e"
    create = app(7, struct.pack("<HI", 1, 5) + text(name), 0)
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap(Talk().open().say(1, SERVER_HELLO).say(0, create).close().packets))
    _, lines, _ = run(str(file))
    assert lines[-1].endswith("CREATE_CHANNEL  X\\x1b[31m\\r\\n\\u202e  cid=5")
    _, lines, _ = run("--json", str(file))
    assert json.loads(lines[-1])["pv"] == name


def test_the_progress_bar_is_for_terminals(session: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from pvafast.cli import decode

    monkeypatch.setattr(decode, "_PROGRESS_AFTER", 0.0)
    monkeypatch.setattr(decode, "_PROGRESS_EVERY", 0.0)
    path = session("bench_ntsas")
    main(["decode", path])
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    main(["decode", path])
    err = capfd.readouterr().err
    assert "MB" in err
    assert "100%" in err
    assert err.endswith("\r\x1b[K")
    # Where the lines go to the same terminal, they say it.
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    main(["decode", path])
    assert capfd.readouterr().err == ""
