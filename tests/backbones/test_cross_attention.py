"""Gated cross-attention to the latest image or to all images before the text (OpenFlamingo's two modes)."""

from dataclasses import replace

import pytest
import torch

from mmrnn.backbones import RWKV6, GatedCrossAttention, Transformer
from mmrnn.backbones.cross_attention import GatedBlock, media_mask
from mmrnn.model.vlm import VLM
from mmrnn.types import ImageSpan, Layout, Sequence

BESIDE = Layout(cross_attention=3)
BACKBONES = {
    "rwkv6": lambda: RWKV6(vocab=40, width=16, depth=2, head_size=8),
    "transformer": lambda: Transformer(vocab=40, width=16, depth=2, heads=2, ffn=24),
}


@pytest.mark.golden
def test_a_block_equals_the_original(golden, params):
    case, tensors = golden("perceiver")
    bank, text = tensors["out/alone_latents"], tensors["in/alone_text"]
    block = GatedBlock(text.shape[-1], bank.shape[-1], case["config"]["x_heads"], case["config"]["dim_head"])
    names = {"attn.norm": "norm", "attn.to_q": "query", "attn.to_kv": "kv", "attn.to_out": "output"}
    names |= {"attn_gate": "gate", "ff_gate": "mlp_gate", "ff": "mlp"}
    weights = {}
    for name, value in params(tensors, "param/alone_block.").items():
        old = next(old for old in names if name.startswith(old))
        weights[names[old] + name.removeprefix(old)] = value
    block.load_state_dict(weights)
    ids = tensors["in/alone_media_locations"].long()
    blocks = tuple(ImageSpan(row, at, BESIDE) for row, at in ids.nonzero().tolist())
    seen = media_mask(Sequence(ids, blocks), bank.shape[1], None, attend_all=True)
    out = block(text, bank.flatten(1, 2), seen.repeat_interleave(bank.shape[2], 2))
    # Text before the first image attends to none here; upstream it attends to all, later ones included.
    begun = ids.cumsum(1) > 0
    assert begun.any(1).all()
    torch.testing.assert_close(out[begun], tensors["out/alone_block_all_previous"][begun], atol=1e-4, rtol=1e-4)


def model(backbone, images):
    torch.manual_seed(0)
    made = BACKBONES[backbone]()
    hook = GatedCrossAttention(made, 12, every=1, heads=2, head_size=4, images=images)
    with torch.no_grad():
        for parameter in (*made.parameters(), *hook.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return VLM(made, {}, hook=hook).eval()


def two_rows():
    """Two images in the first row, one in the second."""
    torch.manual_seed(1)
    blocks = (ImageSpan(0, 2, BESIDE), ImageSpan(0, 6, BESIDE), ImageSpan(1, 1, BESIDE))
    return Sequence(torch.randint(1, 40, (2, 10)), blocks, media=torch.randn(3, 3, 12))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_later_text_attends_to_earlier_images(backbone):
    latest, every = (model(backbone, which).run_backbone(two_rows())[0] for which in ("latest", "all"))
    torch.testing.assert_close(every[0, :6], latest[0, :6])
    torch.testing.assert_close(every[1], latest[1])
    assert (every[0, 6:] - latest[0, 6:]).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("which", ["latest", "all"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_in_chunks_and_packed(backbone, which):
    made, sequence = model(backbone, which), two_rows()
    whole, state = made.run_backbone(sequence)
    assert state.shared["media"].shape[1] == (2 if which == "all" else 1)
    for cut in (1, 3, 6, 7, 9):
        before, state = made.run_backbone(sequence.slice(0, cut))
        behind, _ = made.run_backbone(sequence.slice(cut, 10), state)
        torch.testing.assert_close(torch.cat([before, behind], 1), whole, atol=2e-5, rtol=1e-4)
    packed = replace(
        sequence,
        ids=sequence.ids.view(1, 20),
        image_spans=(*sequence.image_spans[:2], ImageSpan(0, 11, BESIDE)),
        segments=torch.arange(2).repeat_interleave(10)[None],
    )
    torch.testing.assert_close(made.run_backbone(packed)[0].view_as(whole), whole, atol=2e-5, rtol=1e-4)
