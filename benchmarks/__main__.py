"""python -m benchmarks: see report.py."""

import sys

from .report import main

sys.exit(main())
