"""Sphinx: `python -m sphinx -W --keep-going docs build/docs`; doctests: `-b doctest`."""

import os

# The Python twin has the signatures and types, which the compiled one obeys.
os.environ.setdefault("PVAFAST_BACKEND", "py")

import pvafast

project = "pvafast"
author = "The pvafast developers"
copyright = "The pvafast developers"
version = release = pvafast.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
]
html_theme = "furo"
html_title = f"pvafast {release}"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = []
suppress_warnings = ["ref.python"]  # names that two rooms have: Channel, Request
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
# Links into other projects' pages are a convenience: the pages must build behind a firewall.
intersphinx_mapping = {}
doctest_global_setup = "import numpy as np\nimport pvafast\nfrom pvafast import messages\n"
