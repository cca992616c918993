"""Build the compiled twin, or install without it.

PVAFAST_BUILD=require  a failing build is an error (CI, releases)
PVAFAST_BUILD=skip     do not compile: install the pure-Python fallback
otherwise              compile; where that fails, the fallback is installed
"""

import os
import sys
import sysconfig
import threading
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

MODE = os.environ.get("PVAFAST_BUILD", "")
if MODE not in ("", "require", "skip"):
    sys.exit(f"PVAFAST_BUILD={MODE!r}: use 'require' or 'skip', or leave it unset")

PACKAGE = Path("src/pvafast/_c")  # every build runs in the directory of this file
NAMES = [] if MODE == "skip" else sorted(path.stem for path in PACKAGE.glob("*.pyx"))
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": True,
    "wraparound": False,
    "auto_pickle": False,
    "embedsignature": False,
    "freethreading_compatible": True,
}
# An -O in CFLAGS is a wish (AddressSanitizer, debugging), and what stands last on the command line wins.
OPTIMIZE = [] if sys.platform == "win32" or "-O" in os.environ.get("CFLAGS", "") else ["-O3", "-g0"]


def remove_compiled(package, *, keep=()):
    """Delete this interpreter's compiled modules in the directory `package`, but for the files named in `keep`."""
    for path in package.glob("*" + sysconfig.get_config_var("EXT_SUFFIX")):
        if path.name not in keep:
            path.unlink()


class BuildPython(build_py):
    """Comes before the extensions: what an earlier build left must not get into this one."""

    def run(self):
        remove_compiled(PACKAGE if self.editable_mode else Path(self.build_lib, "pvafast/_c"))
        super().run()


class AllOrNothing(build_ext):
    """All extensions are built, or none: a half-compiled install does not exist."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None and sys.platform != "win32":
            self.parallel = os.cpu_count()
        self.cython = threading.Lock()  # it has global state
        self.failed = False

    def run(self):
        strict = MODE == "require" or (self.inplace and not self.editable_mode)
        files = [Path(self.get_ext_filename(extension.name)).name for extension in self.extensions]
        packages = [Path(self.build_lib, "pvafast/_c"), *([PACKAGE] if self.inplace else [])]
        for package in packages:
            remove_compiled(package, keep=files)
        try:
            super().run()
        except Exception as error:
            if strict:  # who says "setup.py build_ext --inplace" wants the modules, or the reason
                raise
            print(f"pvafast: no compiled twin ({error}); the fallback is installed", file=sys.stderr)
            for package in packages:
                remove_compiled(package)
            self.extensions = []

    def build_extension(self, extension):
        with self.cython:
            if self.failed:
                return
            try:
                prepare(extension)
            except Exception:
                self.failed = True
                raise
        try:
            super().build_extension(extension)
        except Exception:
            self.failed = True
            raise


def prepare(extension):
    """Translate to C. Only here, so that metadata, sdists and the fallback ask for neither Cython nor numpy."""
    import numpy
    from Cython.Build import cythonize

    extension.include_dirs.append(numpy.get_include())
    [translated] = cythonize(
        [extension], build_dir="build/cython", compiler_directives=DIRECTIVES, quiet=True
    )
    extension.sources = translated.sources


setup(
    ext_modules=[
        Extension(
            f"pvafast._c.{name}",
            [f"{PACKAGE.as_posix()}/{name}.pyx"],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=OPTIMIZE,
        )
        for name in NAMES
    ],
    cmdclass={"build_py": BuildPython, "build_ext": AllOrNothing},
)
