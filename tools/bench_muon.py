"""Time of a Muon step on the matrices of the default run: batched by shape, against torch's own optimiser.

    python tools/bench_muon.py [THREADS]

Alternating steps, median of the ratios of all rounds.
"""

import statistics
import sys
import time

import torch

import mmrnn
from mmrnn.training.optim import Muon, hidden_matrices

ROUNDS = 21


def timed(optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(threads)
    shapes = [weight.shape for weight in hidden_matrices(mmrnn.build(mmrnn.compose()))]
    sides = []
    for kind, knobs in ((Muon, {}), (torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"})):
        weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        sides.append(kind(weights, lr=0.005, **knobs))
    for optimizer in sides:
        timed(optimizer)
    rounds = [[timed(optimizer) for optimizer in sides] for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(times) * 1e3 for times in zip(*rounds, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in rounds)
    print(f"{len(shapes)} matrices, {threads} threads: {ours:.1f} ms, torch {theirs:.1f} ms, {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
