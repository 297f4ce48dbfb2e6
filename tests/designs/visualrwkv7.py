"""Parts of VisualRWKV-7's golden cases, and the comparisons that they share."""

import torch

from mmrnn import weights
from mmrnn.backbones import RWKV7
from mmrnn.encoders import TimmViT


def tower(config: dict, **knobs) -> TimmViT:
    """The SigLIP of a case, with its last norm."""
    return TimmViT(
        name="vit_so400m_patch14_siglip_384",
        size=config["image"],
        layer=-1,
        norm=True,
        act="gelu_tanh",
        resize="squash",
        depth=config["v_layers"],
        arch={
            "patch_size": config["patch"],
            "embed_dim": config["v_width"],
            "num_heads": 2,
            "mlp_ratio": config["v_ffn"] / config["v_width"],
        },
        **knobs,
    )


def language(config: dict, params: dict) -> RWKV7:
    """The language model of a case, its ranks read from the tensors."""
    ranks = {"decay_rank": "w1", "rate_rank": "a1", "gate_rank": "g1"}
    found = {knob: params[f"rwkv.blocks.0.att.{name}"].shape[1] for knob, name in ranks.items()}
    found["residual_rank"] = params["rwkv.blocks.1.att.v1"].shape[1]
    ffn = params["rwkv.blocks.0.ffn.key.weight"].shape[0]
    heads, size = params["rwkv.blocks.0.att.r_k"].shape
    sizes = {"vocab": config["vocab"], "width": config["n_embd"], "depth": config["n_layer"]}
    return RWKV7(**sizes, heads=heads, head_size=size, ffn=ffn, **found)


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def compare_gradients(part: torch.nn.Module, expected: dict, limit: float) -> None:
    """Gradients of a part against those under the original names, relative to the largest entry of each."""
    found = {name: value.grad for name, value in part.named_parameters()}
    converted = weights.convert(part, expected, partial=True)
    assert converted
    for name, value in converted.items():
        assert (found[name] - value).abs().max() <= limit * value.abs().max(), name
