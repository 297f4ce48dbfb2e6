"""`python -m mmrnn`, the same as the command `mmrnn`."""

from mmrnn.cli.main import run

run()
