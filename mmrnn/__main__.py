"""`python -m mmrnn`, the same as the command `mmrnn`."""

import sys

from mmrnn.cli import main

sys.exit(main())
