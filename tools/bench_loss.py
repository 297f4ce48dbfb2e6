"""Peak memory of loss and backward pass over the head: logits whole, and in chunks.

    python tools/bench_loss.py [POSITIONS ...]

One process for each row; the peak is that of its resident memory over the one before the loss. The head has a
vocabulary of 65,536 (RWKV) and the width 128, so that little but logits counts. L2Wrap and z-loss are on.
"""

import resource
import subprocess
import sys
import time

import torch
from torch import Tensor, nn

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


def peak() -> int:
    """Largest resident memory of this process until now, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(positions: int, chunk_size: int) -> tuple[float, float]:
    """Return MB and seconds of one loss and its backward pass."""
    torch.manual_seed(0)
    model, hidden = Head(), torch.randn(1, positions, WIDTH, requires_grad=True)
    ids = torch.randint(0, VOCAB, (1, positions))
    objective = LanguageModel(reduction="token", l2wrap=1e-4, z_loss=1e-4, chunk_size=chunk_size)
    before, start = peak(), time.perf_counter()
    objective(model, Output(hidden, State(()), Sequence(ids, labels=ids))).backward()
    return (peak() - before) / 1e6, time.perf_counter() - start


def main() -> None:
    """Measure every number of positions in processes of their own, and print a table."""
    if sys.argv[1:2] == ["--one"]:
        megabytes, seconds = measure(int(sys.argv[2]), int(sys.argv[3]))
        print(f"{megabytes:.0f} {seconds:.1f}")
        return
    print(f"vocabulary {VOCAB}, logits of a chunk of {CHUNK}: {4 * CHUNK * VOCAB / 1e6:.0f} MB")
    print(f"{'positions':>9}  {'whole MB':>9} {'s':>5}  {'chunks MB':>9} {'s':>5}")
    for positions in [int(word) for word in sys.argv[1:]] or [1024, 2048, 4096]:
        results = []
        for size in (positions, CHUNK):
            command = [sys.executable, __file__, "--one", str(positions), str(size)]
            results += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        print("{:>9}  {:>9} {:>5}  {:>9} {:>5}".format(positions, *results))


if __name__ == "__main__":
    main()
