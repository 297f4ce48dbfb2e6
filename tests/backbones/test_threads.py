"""Threads that decode with the same models at the same time get bit for bit what each gets alone."""

import threading

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.layers.linear import prepack
from mmrnn.types import Sequence

SIZES = {"vocab": 50, "width": 64, "depth": 3, "head_size": 32}


def randomised(cls, **knobs):
    model = cls(**SIZES, **knobs).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def decode(model, seed, rows, steps=40):
    """Hidden states of all tokens of a greedy reply."""
    tokens, state, found = torch.arange(seed, seed + rows)[:, None], None, []
    for _ in range(steps):
        hidden, state = model(Sequence(tokens), state)
        tokens = model.head(hidden).argmax(-1)
        found.append(hidden)
    return torch.cat(found, 1)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    found = [randomised(RWKV5), randomised(RWKV6), randomised(RWKV6, mix_rank=8), randomised(RWKV7)]
    prepack(found[1])
    return [*found, randomised(RWKV6).bfloat16()]


@pytest.mark.parametrize("mixture", [(0,) * 4, (1,) * 4, (3,) * 4, (4,) * 4, (0, 1, 2, 3, 4, 1)], ids=str)
def test_each_thread_gets_what_it_gets_alone(models, mixture):
    jobs = [(models[model], seed, seed % 3 + 1) for seed, model in enumerate(mixture)]
    alone = [decode(*job) for job in jobs]
    found = [None] * len(jobs)

    def work(index):
        found[index] = decode(*jobs[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(torch.equal, found, alone))
