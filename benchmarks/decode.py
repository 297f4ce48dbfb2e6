"""What a token costs after 100 and after 24,000 tokens: RWKV-6 beside a transformer of the same size.

    python benchmarks/decode.py

One thread, processor time, the contexts in turn, medians. The context is a state of that age: for the transformer a
cache of so many keys and values, for RWKV-6 the state that reading so many tokens leaves (its size does not change).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time

import torch

from mmrnn.backbones import RWKV6, Transformer
from mmrnn.types import Sequence, State

torch.set_num_threads(1)
torch.set_grad_enabled(False)

CONTEXTS, ROUNDS, WIDTH, DEPTH = (100, 24_000), 15, 256, 6


def aged(model, tokens: int) -> State:
    """The state after so many tokens."""
    if model.recurrent:
        state = None
        for piece in torch.randint(0, 1000, (1, tokens)).split(1000, dim=1):
            _, state = model(Sequence(piece), state)
        return state
    empty = model.state(1)
    layers = tuple(
        {name: torch.randn(1, value.shape[1], tokens, value.shape[3]) for name, value in layer.items()}
        for layer in empty.layers
    )
    return State(layers, {"next": torch.tensor([tokens])})


def main() -> None:
    models = {
        "RWKV-6": RWKV6(vocab=1000, width=WIDTH, depth=DEPTH),
        "transformer": Transformer(vocab=1000, width=WIDTH, depth=DEPTH, heads=4, ffn=704),
    }
    token = Sequence(torch.tensor([[1]]))
    print(f"{WIDTH} wide, {DEPTH} deep, fp32, 1 thread: ms of processor time for a token (state)")
    for name, model in models.items():
        states = {context: aged(model, context) for context in CONTEXTS}
        times = {context: [] for context in CONTEXTS}
        for _ in range(ROUNDS):
            for context, state in states.items():
                start = time.process_time()
                model.head(model(token, state)[0])
                times[context].append(time.process_time() - start)
        ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
        cells = ", ".join(
            f"{context}: {statistics.median(times[context]) * 1e3:.2f} ({states[context].nbytes / 1e6:.2f} MB)"
            for context in CONTEXTS
        )
        print(f"{name:<12} {cells}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
