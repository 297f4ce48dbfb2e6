"""Runs a function on several gloo processes."""

import os
import sys
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmrnn.training.distributed.world import World


def run_ranks(size, function, folder, *arguments, timeout=120, killed=()):
    """Call `function(world, *arguments)` on `size` ranks; what it returns is returned, by rank.

    A hang or a failure of a rank fails the test, but for those that are `killed`. Ranks end without destructors: gloo
    aborts in them now and then.
    """
    # The functions of a test cannot be imported by a new interpreter.
    context = mp.get_context("fork")
    store = folder / f"rendezvous_{len(list(folder.glob('rendezvous_*')))}"
    seconds = 10 if killed else 60
    processes = [
        context.Process(target=_rank, args=(rank, size, str(store), seconds, function, arguments))
        for rank in range(size)
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
    alive = [rank for rank in range(size) if rank not in killed]
    assert [process.exitcode for process in processes] == [0 if rank in alive else -9 for rank in range(size)]
    return [torch.load(f"{store}.{rank}", weights_only=False) for rank in alive]


def _rank(rank, size, store, seconds, function, arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    code = 1
    try:
        method, timeout = f"file://{store}", timedelta(seconds=seconds)
        dist.init_process_group("cpu:gloo", init_method=method, rank=rank, world_size=size, timeout=timeout)
        torch.save(function(World(rank, size), *arguments), f"{store}.{rank}")
        if seconds > 10:
            dist.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
