"""Build the compiled twin, or install without it.

PVAFAST_BUILD=require  a failing compiler is an error (CI, releases)
PVAFAST_BUILD=skip     do not compile: install the pure-Python fallback
otherwise              compile; where that fails, the fallback is installed
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODE = os.environ.get("PVAFAST_BUILD", "")
if MODE not in ("", "require", "skip"):
    sys.exit(f"PVAFAST_BUILD={MODE!r}: use 'require' or 'skip', or leave it unset")

ROOT = Path(__file__).parent
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": True,
    "wraparound": False,
    "auto_pickle": False,
    "embedsignature": False,
    "freethreading_compatible": True,
}


class AllOrNothing(build_ext):
    """All extensions are built, or none: a half-compiled install does not exist."""

    def run(self):
        try:
            super().run()
        except Exception as error:
            if MODE == "require":
                raise
            self.drop(error)

    def build_extensions(self):
        # setuptools' own `optional` would keep the extensions that compiled; here one failure drops all.
        for extension in self.extensions:
            extension.optional = False
        super().build_extensions()

    def drop(self, error):
        print(f"pvafast: no compiled twin ({error}); the pure-Python fallback is installed", file=sys.stderr)
        for extension in self.extensions:
            for base in {Path(self.build_lib), ROOT / "src"}:
                built = base / self.get_ext_filename(extension.name)
                built.unlink(missing_ok=True)
        self.extensions = []


def extensions():
    if MODE == "skip":
        return []
    try:
        import numpy
        from Cython.Build import cythonize
    except ImportError:
        if MODE == "require":
            raise
        return []
    names = sorted(path.stem for path in (ROOT / "src/pvafast/_c").glob("*.pyx"))
    modules = [
        Extension(
            f"pvafast._c.{name}",
            [f"src/pvafast/_c/{name}.pyx"],
            include_dirs=[numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=[] if sys.platform == "win32" else ["-O3"],
        )
        for name in names
    ]
    modules = cythonize(modules, build_dir="build/cython", compiler_directives=DIRECTIVES)
    for module in modules:
        module.optional = MODE != "require"  # cythonize() drops what was set before
    return modules


setup(ext_modules=extensions(), cmdclass={"build_ext": AllOrNothing})
