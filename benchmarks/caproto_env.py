"""Make the environment that caproto 0.8.1 is timed in: `python -m benchmarks.caproto_env`.

It is `.venv-caproto` in the checkout, or the Python that PVAFAST_BENCH_CAPROTO names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.8.1"
PLACE = Path(__file__).parents[1] / ".venv-caproto"


def python() -> str | None:
    """The interpreter of the environment, None where there is none."""
    named = os.environ.get("PVAFAST_BENCH_CAPROTO")
    if named:
        return named
    path = PLACE / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return str(path) if path.exists() else None


def make() -> str:
    """Make the environment where it is missing; returns its interpreter. Raises ImportError where that fails."""
    found = python()
    if found is None:
        venv.create(PLACE, with_pip=True)
        found = python()
        assert found is not None
        command = [found, "-m", "pip", "install", "--quiet", f"caproto=={VERSION}", "numpy", "pytest"]
        try:
            subprocess.run(command, check=True, stdout=sys.stderr)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(PLACE)  # or the next run would take it for the environment
            raise ImportError(
                f"its environment cannot be made: pip's exit status is {error.returncode}"
            ) from None
    return found


if __name__ == "__main__":
    print(make())
