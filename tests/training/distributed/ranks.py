"""Runs a function on several gloo processes."""

import os
import sys
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmrnn.training.distributed.world import World


def run_ranks(size, function, folder, *arguments, timeout=120):
    """Call `function(world, *arguments)` on `size` ranks; what it returns is returned, by rank.

    A hang or a failure of a rank fails the test. Ranks end without destructors: gloo aborts in them now and then.
    """
    context = mp.get_context("fork")
    store = folder / f"rendezvous_{len(list(folder.glob('rendezvous_*')))}"
    processes = [
        context.Process(target=_rank, args=(rank, size, str(store), function, arguments)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    hung = [process for process in processes if process.exitcode is None]
    for process in hung:
        process.kill()
        process.join()
    assert not hung, "ranks hang"
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(f"{store}.{rank}", weights_only=False) for rank in range(size)]


def _rank(rank, size, store, function, arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    code = 1
    try:
        dist.init_process_group(
            "cpu:gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
        )
        torch.save(function(World(rank, size), *arguments), f"{store}.{rank}")
        dist.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
