"""Chunks of the head under FSDP2: processes with different numbers of chunks learn what one process learns.

The file runs itself, once a process: `python test_chunks_fsdp.py RANK FOLDER`.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mmrnn.backbones import RWKV6
from mmrnn.model.vlm import VLM
from mmrnn.training import LanguageModel
from mmrnn.training.step import TrainStep, shares
from mmrnn.types import IGNORE, Batch, Sequence

TARGETS = (30, 9, 0)
"""Of the two processes: chunks of 4 make 8 and 3 of them; and of a process of padding alone: one empty chunk."""


def module():
    torch.manual_seed(0)
    model = VLM(RWKV6(vocab=50, width=16, depth=2, head_size=8, mix_rank=4, decay_rank=4), {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return TrainStep(model, LanguageModel(reduction="token", chunk_size=4, l2wrap=0.1, z_loss=0.01))


def batch_of(count):
    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(count))
    labels, padding = ids.clone(), torch.zeros_like(ids, dtype=torch.bool)
    labels[:, 0], labels[:, count + 1 :], padding[:, count + 1 :] = IGNORE, IGNORE, True
    return Batch(Sequence(ids, labels=labels, padding=padding if count else torch.ones_like(padding)))


def one_process(pair):
    """Losses of the two batches as micro-batches, and the sum of their gradients."""
    step, batches = module(), [batch_of(count) for count in pair]
    losses = [step(batch, share) for batch, share in zip(batches, shares(step.objective, batches), strict=True)]
    sum(losses).backward()
    return {"losses": torch.stack(losses).detach()} | {name: p.grad for name, p in step.named_parameters()}


def two_processes(rank, pair):
    step, mesh = module(), init_device_mesh("cpu", (2,))
    for block in step.model.backbone.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    batches = [batch_of(count) for count in pair]
    # Gradients are means over the processes.
    share = tuple(2 * part for part in shares(step.objective, batches)[rank])
    loss = step(batches[rank], share)
    loss.backward()
    return {"loss": loss.detach() / 2} | {name: p.grad.full_tensor() for name, p in step.named_parameters()}


@pytest.mark.slow
def test_processes_may_have_different_numbers_of_chunks(tmp_path):
    told = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    running = [subprocess.Popen([*command, str(rank), str(tmp_path)], env=told) for rank in range(2)]
    try:
        assert [process.wait(timeout=100) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    for number, pair in enumerate((TARGETS[:2], TARGETS[1:])):
        whole = one_process(pair)
        losses = whole.pop("losses")
        for rank in range(2):
            part = torch.load(tmp_path / f"{rank}.{number}.pt", weights_only=True)
            torch.testing.assert_close(part.pop("loss"), losses[rank], atol=1e-6, rtol=1e-5)
            assert part.keys() == whole.keys()
            for name, value in whole.items():
                torch.testing.assert_close(part[name], value, atol=1e-6, rtol=1e-4, msg=name)


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meeting = f"file://{folder / 'meet'}"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    for number, pair in enumerate((TARGETS[:2], TARGETS[1:])):
        torch.save(two_processes(rank, pair), folder / f"{rank}.{number}.pt")
    sys.stderr.flush()
    torch.distributed.barrier()
    os._exit(0)
