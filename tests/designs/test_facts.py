"""Facts about the designs, without running the originals: sizes, places, positions, what must change nothing."""

from functools import partial

import pytest
import torch
from torch import nn

from mmrnn.backbones import GatedCrossAttention, Transformer, VisualExpert
from mmrnn.backbones.cross_attention import GatedBlock
from mmrnn.backbones.expert import expert_mask
from mmrnn.backbones.positions import shared_image
from mmrnn.connectors import GLU, MLP, BeginEndTokens, CrossAttentionTokens, Linear, Perceiver, Resampler, RowSeparators
from mmrnn.data import Collator
from mmrnn.encoders import EVEPatchEmbed, PatchEmbed, Patchify
from mmrnn.model.vlm import VLM, Modality
from mmrnn.prompts import Template
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import LanguageModel, PatchAlignment
from mmrnn.types import IGNORE, SLOT, Encoder, ImageSpan, ImageSpec, Layout, Sample, Sequence, Turn
from mmrnn.weights import convert


def parameters(*parts: nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


class Teacher(nn.Module, Encoder):
    """As wide as CLIP-L, and nothing else."""

    width, image = 1024, ImageSpec((336, 336))

    def layout(self, height, width):
        return Layout(height // 14, width // 14)


def pal() -> nn.Module:
    return PatchAlignment(VLM(Transformer(), {}), teacher=Teacher())


@pytest.mark.parametrize(
    ("make", "count"),
    [
        pytest.param(partial(Linear, 768, 2048), 1_574_912, id="q-former to 2048"),
        pytest.param(partial(Linear, 768, 2560), 1_968_640, id="q-former to 2560"),
        pytest.param(partial(Linear, 768, 4096), 3_149_824, id="q-former to 4096"),
        pytest.param(partial(Linear, 768, 5120), 3_937_280, id="q-former to 5120"),
        pytest.param(partial(GLU, 1792, 4096), 142_614_528, id="cogvlm adapter"),
        pytest.param(partial(BeginEndTokens, 1792, 4096, part=GLU), 142_614_528 + 8_192, id="cogvlm begin and end"),
        pytest.param(partial(Resampler, 1664, 4096), 75_005_952 + 16_785_408, id="qwen-vl"),
        pytest.param(EVEPatchEmbed, 9_003_008, id="eve patches"),
        pytest.param(lambda: nn.ModuleList([EVEPatchEmbed(), MLP(1024, 4096)]), 29_982_720, id="eve to 4096"),
        pytest.param(pal, 43_067_392, id="eve alignment"),
        pytest.param(partial(Linear, 2700, 4096), 11_063_296, id="fuyu"),
        pytest.param(partial(Perceiver, 1024), 63_019_008, id="perceiver"),
        pytest.param(partial(GatedBlock, 2048, 1024, 8, 64), 36_708_354, id="gated block 2048"),
        pytest.param(partial(GatedBlock, 4096, 1024, 8, 64), 139_476_994, id="gated block 4096"),
        pytest.param(lambda: VisualExpert(Transformer(depth=1)), 202_375_168, id="visual expert, a layer"),
    ],
)
def test_parameters(make, count):
    with torch.device("meta"):
        made = make()
    assert parameters(made) == count


def test_the_head_of_the_resampler_is_counted_apart():
    with torch.device("meta"):
        made = Resampler(1664, 4096)
    assert parameters(made) - parameters(made.norm, made.output) == 75_005_952


@pytest.mark.parametrize(("size", "slots"), [((1080, 1920), 2340), ((300, 300), 110), ((30, 30), 2)])
def test_slots_of_fuyu(size, slots):
    modality = Modality(Patchify(size=(1080, 1920), resize="within"), RowSeparators(2700, 8, part=Linear))
    assert modality.layout(*size).tokens == slots


def test_slots_of_flamingo():
    made = CrossAttentionTokens(16, part=partial(Perceiver, latents=64, depth=1, heads=1, head_size=4))
    layout = made.layout(Layout(16, 16))
    assert (layout.tokens, layout.cross_attention) == (0, 64)


def test_vectors_of_cogvlm():
    """BOS, begin, three patches, end, two words."""
    layout = Layout(1, 3, prefix=1, suffix=1)
    sequence = Sequence(torch.tensor([[1, SLOT, SLOT, SLOT, SLOT, SLOT, 7, 8]]), (ImageSpan(0, 1, layout),))
    assert shared_image(sequence).tolist() == [[0, 1, 2, 2, 2, 3, 4, 5]]
    assert sequence.visual.int().tolist() == [[0, 1, 1, 1, 1, 1, 0, 0]]
    assert expert_mask(sequence.visual).int().tolist() == [[0, 1, 1, 1, 1, 0, 0, 0]]


def test_qwen_keeps_queries_keys_and_values_head_by_head():
    """Thirds, into which the projection is reordered on loading, can be reordered back."""
    from mmrnn.encoders import TimmViT

    arch = {"patch_size": 8, "embed_dim": 24, "num_heads": 3, "mlp_ratio": 2.0}
    arch |= {"class_token": False, "norm_layer": "layernorm"}
    tower = TimmViT(name="vit_gigantic_patch14_clip_224", size=16, depth=1, layer=-1, pos_interp="plain", arch=arch)
    theirs = {"positional_embedding": torch.randn(4, 24), "conv1.weight": torch.randn(24, 3, 8, 8)}
    theirs["transformer.resblocks.0.attn.in_proj.weight"] = torch.randn(72, 24)
    name = "trunk.blocks.0.attn.qkv.weight"
    ours = convert(tower, theirs, format="qwen_vl")[name]
    back = ours.unflatten(0, (3, 3, 8)).transpose(0, 1).flatten(0, 2)  # third head k -> head third k
    assert torch.equal(back, theirs["transformer.resblocks.0.attn.in_proj.weight"])
    assert not torch.equal(ours, back)


def test_gates_of_zero_change_nothing():
    torch.manual_seed(0)
    backbone = Transformer(vocab=50, width=32, depth=2, heads=2, ffn=48).eval()
    hook = GatedCrossAttention(backbone, 12, every=1, heads=2, head_size=4)
    ids = torch.randint(1, 50, (1, 7))
    sequence = Sequence(ids, (ImageSpan(0, 2, Layout(cross_attention=3)),), media=torch.randn(1, 3, 12))
    bare, _ = backbone(Sequence(ids))
    hidden, _ = VLM(backbone, {}, hook=hook).run_backbone(sequence)
    torch.testing.assert_close(hidden, bare)
    nn.init.ones_(hook.blocks["0"].gate)
    assert (VLM(backbone, {}, hook=hook).run_backbone(sequence)[0] - bare).abs().max() > 1e-4


def test_a_batch_of_text_leaves_the_connector_alone():
    """As in VILA: no dummy image, a finite loss, no gradient (LLaVA has one of zeros)."""
    modality = Modality(PatchEmbed(patch=4, size=8, width=12), MLP(12, 32))
    model = VLM(Transformer(vocab=1024, width=32, depth=1, heads=2, ffn=48), {"image": modality})
    samples = [Sample((Turn("user", "well?"), Turn("assistant", "yes")))]
    batch = Collator(DemoTokenizer(), Template(), dict(model.modalities))(samples)
    assert (batch.sequence.labels != IGNORE).any()
    loss = LanguageModel()(model, model(batch))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is None for parameter in modality.parameters())
    assert model.backbone.embedding.weight.grad.abs().sum() > 0
