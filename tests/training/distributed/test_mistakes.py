"""Mistakes in a command of several processes: one of them prints a mistake, and all end with its exit code."""

import os
from contextlib import redirect_stderr
from io import StringIO

import pytest

from mmrnn.cli.main import main
from mmrnn.config.error import ConfigError
from mmrnn.training.distributed.world import RankError
from tests.training.distributed.ranks import run_ranks

TINY = ("train", "model=visualrwkv6_tiny", "evaluate.samples=0")


def command(world, folder, *arguments):
    """Exit code and what a rank prints; words `N:WORD` are those of rank N alone."""
    os.chdir(folder)
    os.environ |= {"RANK": str(world.rank), "WORLD_SIZE": str(world.size), "LOCAL_RANK": str(world.rank)}
    own = [word.removeprefix(f"{world.rank}:") for word in arguments if word[1] != ":" or word[0] == str(world.rank)]
    printed = StringIO()
    with redirect_stderr(printed):
        code = main([*TINY, *own])
    return code, printed.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan=sideways"], "sideways"),
        (["strategy=single"], "strategy=single is for one process, and a launcher has started 2"),
        pytest.param(["data=llava", "data.file=absent.json"], "absent.json", marks=pytest.mark.slow),
        pytest.param(["resume=absent"], "resume: absent holds no whole checkpoint", marks=pytest.mark.slow),
        pytest.param(
            ["0:seed=1", "1:seed=2"],
            "rank 1 has another configuration than rank 0 (it differs in seed)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mistake_of_all_ranks_is_printed_once(tmp_path, arguments, message):
    (code, printed), others = run_ranks(2, command, tmp_path, tmp_path, *arguments)
    assert code == 2
    assert message in printed
    assert printed.count("mmrnn: ") == 1
    assert others == (2, "")


def test_a_mistake_of_one_rank_is_printed_by_it(tmp_path):
    first, (code, printed) = run_ranks(2, command, tmp_path, tmp_path, "1:scan=sideways")
    assert first == (2, "")
    assert code == 2
    assert "sideways" in printed


def outcome(world, faults):
    try:
        with world.all_or_none():
            if faults[world.rank]:
                raise faults[world.rank]
    except Exception as error:
        return type(error), str(error), error.code if isinstance(error, RankError) else None
    return None


def test_work_ends_alike_on_all_ranks(tmp_path):
    assert run_ranks(2, outcome, tmp_path, [None, None]) == [None, None]
    first, second = run_ranks(2, outcome, tmp_path, [ValueError("one"), ConfigError("two")])
    assert first[:2] == (ValueError, "one")
    assert second[:2] == (ConfigError, "two")
    first, second = run_ranks(2, outcome, tmp_path, [None, ValueError("one")])
    assert first == (RankError, "rank 1 failed: ValueError: one", 1)
    assert second[:2] == (ValueError, "one")
