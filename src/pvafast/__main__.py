"""python -m pvafast"""

import sys

from .cli import main

sys.exit(main())
