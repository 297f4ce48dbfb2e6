"""A projector of transformer blocks computes what torch's own encoder layers do."""

import torch
from torch import nn

from mmrnn.connectors import TransformerProjector


def test_blocks_are_those_of_torch():
    torch.manual_seed(0)
    projector = TransformerProjector(12, 32, depth=2, heads=4, ffn=48)
    x = torch.randn(3, 7, 12)
    y = projector.proj(x)
    for block in projector.blocks:
        layer = nn.TransformerEncoderLayer(32, 4, 48, 0.0, "gelu", norm_first=True, batch_first=True)
        joined = [torch.cat([getattr(part, name) for part in (block.query, block.key, block.value)]) for name in PARTS]
        layer.load_state_dict(
            {"self_attn.in_proj_weight": joined[0], "self_attn.in_proj_bias": joined[1]}
            | {
                f"{theirs}.{name}": getattr(block.get_submodule(ours), name)
                for ours, theirs in LAYERS.items()
                for name in PARTS
            }
        )
        y = layer(y)
    torch.testing.assert_close(projector(x), projector.norm(y), rtol=1e-5, atol=1e-5)


PARTS = ("weight", "bias")
LAYERS = {
    "output": "self_attn.out_proj",
    "norm_attention": "norm1",
    "norm_mlp": "norm2",
    "up": "linear1",
    "down": "linear2",
}
