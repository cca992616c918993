"""The stubs of the compiled twin are the text of the Python twin."""

from __future__ import annotations

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "sync_stubs.py"))


def test_the_stubs_are_up_to_date() -> None:
    assert TOOL["stale"]() == [], "run: python tools/sync_stubs.py"


def test_syncing_copies_and_removes(tmp_path: Path) -> None:
    for twin in ("_py", "_c"):
        (tmp_path / twin).mkdir()
        (tmp_path / twin / "__init__.py").touch()
    (tmp_path / "_py" / "value.py").write_text("x: int = 1  # µ\n", encoding="utf-8")
    (tmp_path / "_py" / "codec.py").write_text("y: int = 1\n", encoding="utf-8")
    (tmp_path / "_c" / "value.pyi").write_text("x: str\n", encoding="utf-8")
    (tmp_path / "_c" / "gone.pyi").touch()
    stubs = {name: tmp_path / "_c" / f"{name}.pyi" for name in ("codec", "value", "gone")}

    assert TOOL["stale"](tmp_path) == list(stubs.values())
    TOOL["sync"](tmp_path)
    assert stubs["value"].read_text(encoding="utf-8") == "x: int = 1  # µ\n"
    assert stubs["codec"].read_text(encoding="utf-8") == "y: int = 1\n"
    assert not stubs["gone"].exists()
    assert TOOL["stale"](tmp_path) == []
