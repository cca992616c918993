"""The package as it is delivered: what sdist and wheel hold, and that it installs where nothing compiles."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("setuptools", "Cython", "numpy", "pip")
pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the tests stand apart from the project"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}"
    ),
    pytest.mark.skipif(os.name != "posix", reason="CC is not heeded"),
]
COMPILED = (".so", ".pyd")
SOURCES = (".c", ".cpp", ".pyx", ".pxd")


def python(*arguments: str, cwd: Path, executable: str | Path = sys.executable, **environment: str) -> str:
    """What a Python run in `cwd` prints; PVAFAST_* variables and the search path of this run do not reach it."""
    inherited = {
        name: text for name, text in os.environ.items() if not name.startswith(("PVAFAST_", "PYTHON"))
    }
    done = subprocess.run(
        [str(executable), *arguments], cwd=cwd, env=inherited | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def files(root: Path) -> set[str]:
    """The source files below `root`, relative to it."""
    kinds = (".py", ".pyi", ".pyx", ".pxd", ".typed")
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in kinds}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of this checkout."""
    directory = tmp_path_factory.mktemp("sdist")
    checkout = directory / "checkout"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    for name in ("array.c", "array.so"):  # what other tools may have left
        (checkout / "src/pvafast/_c" / name).touch()
    build = "import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])"
    python("-c", build, str(directory), cwd=checkout)
    [archive] = directory.glob("pvafast-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


def wheel(source: Path, directory: Path, **environment: str) -> Path:
    """Build a wheel of the tree `source` as pip does, with the build requirements of this environment."""
    options = ("--no-build-isolation", "--no-deps", "--no-cache-dir", "--disable-pip-version-check")
    python("-m", "pip", "wheel", *options, "-w", str(directory), ".", cwd=source, **environment)
    [built] = directory.glob("pvafast-*.whl")
    return built


@pytest.fixture(scope="module")
def fallback(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist where the compiler fails and an earlier build has left a module."""
    script = (
        "import sys, sysconfig; print(f'build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}')"
    )
    stale = sdist / python("-c", script, cwd=sdist).strip() / "pvafast/_c"
    stale.mkdir(parents=True)
    suffix = python(
        "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))", cwd=sdist
    ).strip()
    (stale / f"codec{suffix}").touch()
    built = wheel(sdist, tmp_path_factory.mktemp("wheel"), CC="/bin/false")
    assert not list(stale.glob("*.so"))
    return built


def test_the_sdist_holds_every_source_and_nothing_generated(sdist: Path) -> None:
    for part in ("src", "tests", "tools"):
        assert files(ROOT / part) - files(sdist / part) == set()
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "setup.py"):
        assert (sdist / name).exists()
    assert not [path for path in sdist.rglob("*") if path.suffix in (".c", *COMPILED)]


def test_the_wheel_holds_what_runs(fallback: Path) -> None:
    held = set(zipfile.ZipFile(fallback).namelist())
    runs = {f"pvafast/{name}" for name in files(ROOT / "src/pvafast") if not name.endswith(SOURCES)}
    assert runs - held == set()
    assert not [name for name in held if name.endswith((*SOURCES, *COMPILED))]
    assert {name.split("/")[0].split("-")[0] for name in held} == {"pvafast"}


def test_without_a_compiler_the_fallback_works(fallback: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", system_site_packages=False, with_pip=False, symlinks=True)
    executable = tmp_path / "venv/bin/python"
    site = python(
        "-c", "import site; print(site.getsitepackages()[0])", executable=executable, cwd=tmp_path
    ).strip()
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--target", site)
    python("-m", "pip", "install", *options, str(fallback), cwd=tmp_path)
    numpy = importlib.util.find_spec("numpy")
    assert numpy is not None
    assert numpy.origin is not None
    Path(site, "numpy.pth").write_text(str(Path(numpy.origin).parents[1]))  # numpy, but behind the fallback

    program = """
import pvafast
type = pvafast.FieldDesc.of("double[]")
codec = pvafast.Codec()
data = codec.encode([1.5, 2.5], type)
value, end = codec.decode(type, data)
print(pvafast.BACKEND, pvafast.__version__, pvafast.__file__, value.tolist(), end)
"""
    backend, version, path, *rest = python("-c", program, executable=executable, cwd=tmp_path).split(
        maxsplit=3
    )
    assert backend == "py"
    assert f"pvafast-{version}-" in fallback.name
    assert path.startswith(site)
    assert rest == ["[1.5, 2.5] 17\n"]
    with pytest.raises(RuntimeError, match="PVAFAST_BACKEND=c, but the compiled twin does not load"):
        python("-c", "import pvafast", executable=executable, cwd=tmp_path, PVAFAST_BACKEND="c")
    Path(site, "pvafast/_c/codec" + sysconfig.get_config_var("EXT_SUFFIX")).write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match="the compiled twin is there, but does not load"):
        python("-W", "error", "-c", "import pvafast", executable=executable, cwd=tmp_path)


def test_require_makes_a_failing_build_an_error(sdist: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="/bin/false"):
        wheel(sdist, tmp_path, CC="/bin/false", PVAFAST_BUILD="require")


def test_skip_builds_a_pure_wheel(sdist: Path, tmp_path: Path) -> None:
    assert wheel(sdist, tmp_path, PVAFAST_BUILD="skip").name.endswith("-py3-none-any.whl")


def test_an_unknown_mode_is_an_error(sdist: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="PVAFAST_BUILD='yes'"):
        wheel(sdist, tmp_path, PVAFAST_BUILD="yes")
