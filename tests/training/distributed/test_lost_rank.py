"""A rank that was killed, or that hangs, is named by the others, which end."""

import os
import signal
import time

import pytest

from mmrnn.training.distributed.lost_rank import name_lost_ranks
from mmrnn.training.distributed.world import World
from mmrnn.training.ends import StoppedRun, StopSignals
from mmrnn.training.error import TrainingError
from tests.training.distributed.ranks import run_ranks


def _lose(world, how):
    try:
        with name_lost_ranks(world, wait=2.0):
            world.sum([1.0])
            if world.rank == 2:
                if how == "hangs":
                    time.sleep(20)
                os.kill(os.getpid(), signal.SIGKILL)
            world.sum([1.0])
    except TrainingError as error:
        return str(error)


def test_a_killed_rank_is_named(tmp_path):
    first, second = run_ranks(3, _lose, tmp_path, "ends", killed=[2])
    assert first.startswith("rank 2 ended or hangs, so that rank 0 cannot continue (")
    assert second.startswith("a rank, which rank 0 names, ended or hangs, so that rank 1 cannot continue (")
    assert first.endswith("see its own message, and resume with the same command")


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(tmp_path):
    for text in run_ranks(3, _lose, tmp_path, "hangs", killed=[2]):
        assert text.startswith("rank 2 ended or hangs")
        assert "Timed out" in text


def test_a_signal_comes_before_the_failure_that_it_causes():
    expected = pytest.raises(StoppedRun, match="stopped by SIGTERM, after another rank had ended")
    with StopSignals() as signals, expected, name_lost_ranks(World(0, 2), signals):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("gloo: Connection closed by peer")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="gloo"), name_lost_ranks(World()):
        raise RuntimeError("gloo")
    with pytest.raises(RuntimeError, match="shapes"), name_lost_ranks(World(0, 2)):
        raise RuntimeError("shapes do not fit")
