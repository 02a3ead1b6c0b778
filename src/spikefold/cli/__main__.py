"""`python -m spikefold.cli`."""

import sys

from spikefold.cli import main

sys.exit(main())
