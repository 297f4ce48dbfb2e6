"""`python -m mmrnn`, the same as the command `mmrnn`."""

import sys

from mmrnn.cli.main import main

sys.exit(main())
