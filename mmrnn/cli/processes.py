"""Processes of a command that several ranks run together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmrnn.cli.options import Interrupted

if TYPE_CHECKING:
    from mmrnn.training.distributed.world import World


@contextmanager
def start_processes() -> Iterator["World"]:
    """Context of the processes of a command; one that ends because another one failed prints nothing.

    Raises:
        Interrupted: another process failed; without text, and with its exit code.
        ConfigError: the variables of the launcher contradict each other.
    """
    from mmrnn.training.distributed.world import RankError, start_world

    try:
        with start_world() as world:
            yield world
    except RankError as error:
        raise Interrupted("", error.code) from None
