"""Weights that hold no memory under their own address, as those of torchao and DTensor, are read by the blocks."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from mmrnn.backbones import RWKV5, RWKV6, RWKV7, Transformer
from mmrnn.types import Sequence


class Int8Weight(torch.Tensor):
    """Rows of 8-bit numbers and their scales behind the shape of a weight; its own storage is empty."""

    @staticmethod
    def __new__(cls, numbers, scale):
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=scale.dtype, device=numbers.device)

    def __init__(self, numbers, scale):
        self.numbers, self.scale = numbers, scale

    def plain(self):
        return self.numbers.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        del types
        if func is torch.ops.aten.detach.default:
            return cls(args[0].numbers, args[0].scale)
        args, kwargs = tree_map(lambda x: x.plain() if isinstance(x, cls) else x, (args, kwargs or {}))
        return func(*args, **kwargs)


def quantised(weight):
    scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-6) / 127
    return Int8Weight((weight / scale).round().to(torch.int8), scale)


MAKES = {
    "rwkv5": lambda: RWKV5(vocab=50, width=128, depth=2),
    "rwkv6": lambda: RWKV6(vocab=50, width=128, depth=2),
    "rwkv7": lambda: RWKV7(vocab=50, width=128, depth=2),
    "transformer": lambda: Transformer(vocab=50, width=128, depth=2, heads=2, ffn=128),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_quantised_weights_compute_what_their_numbers_do(make, dtype):
    torch.manual_seed(0)
    model, plain = make().eval().to(dtype), make().eval().to(dtype)
    plain.load_state_dict(model.state_dict())
    pairs = zip(model.blocks.modules(), plain.blocks.modules(), strict=True)
    linears = [(one, other) for one, other in pairs if isinstance(one, nn.Linear)]
    assert linears
    for one, other in linears:
        one.weight = nn.Parameter(quantised(one.weight.detach()), requires_grad=False)
        other.weight.data = one.weight.plain()
        assert one.weight.data_ptr() == 0
    state = expected_state = None
    with torch.inference_mode():
        for tokens in (130, 1, 1):  # enough rows to pack the weights for, then one-token steps
            ids = torch.randint(0, 50, (1, tokens))
            hidden, state = model(Sequence(ids), state)
            expected, expected_state = plain(Sequence(ids), expected_state)
            tolerance = 1e-5 if dtype == torch.float32 else 4e-2
            assert (hidden - expected).abs().max() <= tolerance * expected.abs().max()
