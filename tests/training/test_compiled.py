"""Compiled blocks compute what blocks do that are not compiled."""

import pytest
import torch

from mmrnn.backbones import GLM, RWKV5, RWKV6, RWKV7, HFDecoder, Transformer
from mmrnn.training.compiled import compile_blocks
from mmrnn.types import Sequence

SIZES = {"vocab": 50, "width": 32}
HEADS = {"heads": 4, "ffn": 48}
BACKBONES = {
    "rwkv5": lambda: RWKV5(**SIZES, depth=1, head_size=16, dropout=0.1),
    "rwkv6": lambda: RWKV6(**SIZES, depth=1, head_size=16, dropout=0.1, grad_checkpointing=1),
    "rwkv7": lambda: RWKV7(**SIZES, depth=2, head_size=16),
    "transformer": lambda: Transformer(**SIZES, depth=2, **HEADS, dropout=0.1, grad_checkpointing=2),
    "glm": lambda: GLM(**SIZES, depth=2, **HEADS),
}
ROWS = [(9, None), (9, (4, 5)), (6, None), (7, (3, 4))]
"""Lengths of rows, and of the samples in them."""
SLOW = ("rwkv5", "rwkv7", "transformer", "glm")
"""Tracing takes seconds a block and kind of row."""


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    limit = torch._dynamo.config.recompile_limit
    yield
    torch._dynamo.config.recompile_limit = limit


def randomised(make):
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()


def run(model, length, samples, state=None):
    """Hidden states, gradients and the last state of one row."""
    torch.manual_seed(length)
    ids = torch.randint(0, 50, (1, length))
    segments = None if samples is None else torch.arange(len(samples)).repeat_interleave(torch.tensor(samples))[None]
    model.zero_grad()
    hidden, state = model(Sequence(ids, segments=segments), state)
    hidden.square().sum().backward()
    return [hidden.detach(), *(p.grad for p in model.parameters() if p.grad is not None)], state.detach()


def compare(plain, compiled, tolerance, rows=ROWS):
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    states = None, None
    for length, samples in rows:
        (expected, before), (found, after) = (
            run(*given) for given in ((plain, length, samples, states[0]), (compiled, length, samples, states[1]))
        )
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, one, atol=tolerance, rtol=tolerance)
        states = (before, after) if plain.recurrent else (None, None)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BACKBONES]
)
def test_blocks_are_traced_whole(name):
    """Rows of any length, packed or not, and continued from a state; dropout is drawn alike."""
    plain, compiled = randomised(BACKBONES[name]), randomised(BACKBONES[name])
    compile_blocks(compiled, backend="eager", fullgraph=True)
    compare(plain, compiled, 1e-6, ROWS if name in SLOW else ROWS[:2])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
def test_a_model_of_transformers():
    pytest.importorskip("transformers")
    arch = {"num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}
    plain, compiled = (randomised(lambda: HFDecoder(**SIZES, arch=arch)) for _ in range(2))
    compile_blocks(compiled, backend="eager")
    compare(plain, compiled, 1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rwkv5", "rwkv6", "rwkv7", "transformer"])
def test_inductor(name):
    """With the compiler of torch, behind its differentiation ahead of time; it draws dropout differently."""
    plain, compiled = randomised(BACKBONES[name]), randomised(BACKBONES[name])
    for model in (plain, compiled):
        for block in model.blocks:
            block.dropout.p = 0.0
    compile_blocks(compiled, backend="inductor", fullgraph=True)
    compare(plain, compiled, 1e-4, ROWS[:2])
