"""Tokens a second of replies that the server generates together: RWKV-6, RWKV-7 and Llama of equal size.

python tools/bench_serving.py --rows 1 8 16 32 --contexts 1024 8192

Each step gives a token to every row, as `mmrnn serve` does it (`DecodingRows`): head, choice, backbone. The rows
have read as many positions as `context` says. Random weights; processor time, the best of the rounds.
"""

import argparse
import time
from types import SimpleNamespace

import torch
from torch import Tensor

from mmrnn.backbones import RWKV6, RWKV7, Transformer
from mmrnn.inference.dialogue import DialogueRow
from mmrnn.inference.engine.decoding import DecodingRows
from mmrnn.inference.engine.request import GenerationRequest, Job
from mmrnn.io.malloc import tune_malloc
from mmrnn.model.vlm import VLM
from mmrnn.prompts import StopCriteria
from mmrnn.types import Sequence, State

BACKBONES = {"rwkv6": RWKV6, "rwkv7": RWKV7, "llama": Transformer}
CHUNK = 512
"""Positions of the context that are read at once."""

ENDLESS = StopCriteria(SimpleNamespace(ends=()))


@torch.no_grad()
def main() -> None:
    """Print a row for each context and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", choices=BACKBONES, nargs="+", default=[*BACKBONES])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tune_malloc()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbones = {name: BACKBONES[name](vocab=args.vocab, width=args.width, depth=args.depth) for name in args.models}
    for context in args.contexts:
        read = {name: read_context(VLM(backbone, {}).eval(), context) for name, backbone in backbones.items()}
        for rows in args.rows:
            decoding = {name: join(*found, rows) for name, found in read.items()}
            rates = dict.fromkeys(decoding, 0.0)
            for _ in range(args.rounds):
                for name, each in decoding.items():
                    rates[name] = max(rates[name], rows / step_seconds(each, args.steps))
            print(f"{context:6} {rows:3}", *(f"{name} {rate:7.1f}" for name, rate in rates.items()), flush=True)


def read_context(model: VLM, context: int) -> tuple[VLM, Tensor, State]:
    """Read as many random ids; return the last hidden state and the state."""
    ids = torch.randint(model.backbone.vocab, (1, context))
    state = None
    for start in range(0, context, CHUNK):
        hidden, state = model.run_backbone(Sequence(ids[:, start : start + CHUNK]), state)
    return model, hidden[:, -1], state


def join(model: VLM, last: Tensor, state: State, rows: int) -> DecodingRows:
    """Let rows that have read the context be decoded together."""
    decoding = DecodingRows(model, None)
    request = GenerationRequest(DialogueRow([0], [], []), ENDLESS, max_new_tokens=2**30)
    for _ in range(rows):
        decoding.join(Job(request, lambda _: None, torch.device("cpu")), last, state)
    return decoding


def step_seconds(decoding: DecodingRows, steps: int) -> float:
    """Time one token of all rows."""
    start = time.process_time()
    for _ in range(steps):
        decoding.step()
    return (time.process_time() - start) / steps


if __name__ == "__main__":
    main()
