"""Peak memory of loss and backward pass over the head: logits whole, and in chunks (Linux only).

    python tools/bench_loss.py [POSITIONS ...]

A process of its own for each figure; the peak is that over the memory before the loss. The head has a vocabulary of
65,536 (RWKV) and the width 128, so that little but logits counts. L2Wrap and z-loss are on.
"""

import sys
from functools import cache

import torch
from torch import Tensor, nn

from mmrnn.bench.memory import peak_megabytes
from mmrnn.training import LanguageModel
from mmrnn.types import Output, Sequence, State

VOCAB, WIDTH, CHUNK = 65_536, 128, 1024


class Head(nn.Module):
    """Model of a head alone."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(WIDTH, VOCAB, bias=False)

    def head(self, hidden: Tensor) -> Tensor:
        """Compute logits."""
        return self.output(hidden)


@cache
def model() -> Head:
    """Make the head once in a process."""
    return Head()


def run(positions: int, chunk_size: int) -> None:
    """Compute one loss and its gradients."""
    model().zero_grad()
    hidden, ids = torch.randn(1, positions, WIDTH, requires_grad=True), torch.randint(0, VOCAB, (1, positions))
    objective = LanguageModel(reduction="token", l2wrap=1e-4, z_loss=1e-4, chunk_size=chunk_size)
    objective(model(), Output(hidden, State(()), Sequence(ids, labels=ids))).backward()


def main() -> None:
    """Measure every number of positions, and print a table."""
    print(f"vocabulary {VOCAB}, logits of a chunk of {CHUNK}: {4 * CHUNK * VOCAB / 1e6:.0f} MB")
    print(f"{'positions':>9}  {'whole MiB':>10}  {'chunks MiB':>10}")
    for positions in [int(word) for word in sys.argv[1:]] or [1024, 2048, 4096]:
        whole, chunks = (peak_megabytes(run, (8, size), (positions, size)) for size in (positions, CHUNK))
        print(f"{positions:>9}  {whole:>10.0f}  {chunks:>10.0f}")


if __name__ == "__main__":
    main()
