"""``python -m xplabels.cli``."""

import sys

from xplabels.cli import main

sys.exit(main())
