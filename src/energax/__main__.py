"""`python -m energax`."""

import sys

from energax.cli import main

sys.exit(main())
