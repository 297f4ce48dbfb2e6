"""Tokens a second of RWKV-6 over the rows of a batch, by the native step and by the blocks, as multiples of one row.

python tools/bench_decode_rows.py --dtype bf16 --width 2048 --depth 1
"""

import argparse
import time
from unittest.mock import patch

import torch

from mmrnn.backbones import RWKV6, native_decode
from mmrnn.types import Sequence

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Print a table; every figure is the best of the rounds in processor time, one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16, 17, 24, 32, 40, 48, 64])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = RWKV6(vocab=64, width=args.width, depth=args.depth).eval().to(DTYPES[args.dtype])
    best: dict[tuple[bool, int], float] = {}
    for _ in range(args.rounds):
        for rows in args.rows:
            for native in (True, False):
                seconds = token_seconds(model, rows, native)
                best[native, rows] = min(seconds, best.get((native, rows), seconds))
    print("rows  native  blocks")
    for rows in args.rows:
        speedups = (rows * best[True, args.rows[0]] / best[native, rows] / args.rows[0] for native in (True, False))
        print(f"{rows:4}", *(f"{speedup:7.1f}" for speedup in speedups))


@torch.no_grad()
def token_seconds(model: RWKV6, rows: int, native: bool) -> float:
    """Time one token of every row."""
    sequence, state = Sequence(torch.ones(rows, 1, dtype=torch.long)), model.state(rows)
    with patch.object(native_decode, "max_rows", lambda _: rows if native else 0):
        start = time.process_time()
        model(sequence, state)
        return time.process_time() - start


if __name__ == "__main__":
    main()
