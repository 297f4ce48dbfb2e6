"""Common behaviour of towers of timm and open_clip: which tokens, which norm, which dtype, which sizes."""

import copy
import re
from inspect import unwrap

import pytest
import torch
from torch import nn

from mmrnn.encoders import OpenCLIPViT, PatchEmbed, TimmFeatures, TimmViT, Tower
from mmrnn.layers.linear import PackedAttention, PackedLinear, prepack
from mmrnn.types import ImageSpec
from mmrnn_kernels import linear as fast

SIZES = {"size": 32, "depth": 3, "layer": -1}
ARCH = {"patch_size": 8, "embed_dim": 24, "num_heads": 2}
CLIP_ARCH = {"patch_size": 8, "width": 24, "head_width": 12}


def timm_tower(name="vit_large_patch14_clip_quickgelu_336", **knobs):
    return TimmViT(name=name, **{**SIZES, "arch": ARCH, **knobs}).eval()


def clip_vit(**knobs):
    return OpenCLIPViT(**{**SIZES, "arch": CLIP_ARCH, **knobs}).eval()


@pytest.fixture(params=[timm_tower, clip_vit], ids=["timm", "open_clip"])
def make(request):
    return request.param


def twins(make, one, other):
    """Two towers that differ in these knobs, with the same tensors where both have them."""
    first, second = make(**one), make(**other)
    second.load_state_dict(first.state_dict(), strict=False)
    return first, second


def test_a_layer_is_what_a_tower_cut_there_gives(make):
    images = torch.randn(2, 3, 32, 32)
    for layer in (-3, -2, 0, 1):
        whole, cut = twins(make, {"layer": -1}, {"layer": layer})
        count = layer % 3 + 1
        blocks = whole.trunk.blocks if hasattr(whole.trunk, "blocks") else whole.trunk.transformer.resblocks
        del blocks[count:]
        torch.testing.assert_close(cut(images), whole(images))
        assert sum(p.numel() for p in cut.parameters()) == sum(p.numel() for p in whole.parameters())


def test_class_token_first_last_or_dropped(make):
    images = torch.randn(2, 3, 32, 32)
    first, last = twins(make, {"cls": "first"}, {"cls": "last"})
    _, dropped = twins(make, {"cls": "first"}, {"cls": "drop"})
    dropped.load_state_dict(first.state_dict())
    tokens = first(images)
    torch.testing.assert_close(last(images), tokens.roll(-1, dims=1))
    torch.testing.assert_close(dropped(images), tokens[:, 1:])


def test_extra_norm_is_of_its_own(make):
    images = torch.randn(2, 3, 32, 32)
    bare, normed = twins(make, {}, {"extra_norm": 1e-6})
    assert set(normed.state_dict()) - set(bare.state_dict()) == {"extra_norm.weight", "extra_norm.bias"}
    assert normed.extra_norm.eps == 1e-6
    assert make(extra_norm=True).extra_norm.eps == 1e-5
    expected = torch.nn.functional.layer_norm(bare(images), (24,), eps=1e-6)
    torch.testing.assert_close(normed(images), expected)


def test_a_trunk_in_bfloat16_answers_in_float32(make):
    images = torch.randn(2, 3, 32, 32)
    full, half = twins(make, {"extra_norm": True}, {"extra_norm": True, "dtype": "bfloat16"})
    assert half.extra_norm.weight.dtype == torch.float32
    assert {parameter.dtype for parameter in half.trunk.parameters()} == {torch.bfloat16}
    tokens = half(images)
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, full(images), rtol=0.1, atol=0.1)


def test_registers_are_dropped():
    images = torch.randn(2, 3, 32, 32)
    tower = timm_tower("vit_large_patch14_reg4_dinov2", cls="first")
    assert tower.layout(32, 32).tokens == 17
    inner = tower.trunk.forward_features(images)
    assert inner.shape[1] == 21
    torch.testing.assert_close(tower(images), torch.cat((inner[:, :1], inner[:, 5:]), dim=1))


def test_sam_ends_at_its_neck_or_before():
    arch = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "window_size": 2, "global_attn_indexes": [2]}
    for norm, width in ((True, 256), (False, 24)):
        tower = timm_tower("samvit_base_patch16", arch=arch, norm=norm)
        assert tower.width == width
        tokens = tower(torch.randn(1, 3, 32, 32))
        assert tokens.shape == (1, 16, width)
    inner = tower.trunk.patch_embed(torch.zeros(1, 3, 32, 32))
    assert inner.shape == (1, 4, 4, 24)


def test_other_sizes_where_they_are_asked_for():
    tower = timm_tower(dynamic=True, cls="last")
    assert tower.layout(32, 32).tokens == 17
    layout = tower.layout(16, 48)
    assert (layout.rows, layout.cols, layout.suffix) == (2, 6, 1)
    assert tower(torch.randn(1, 3, 16, 48)).shape == (1, 13, 24)


def test_mean_and_std_of_ones_own(make):
    image = make(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize="crop").image
    assert (image.mean, image.std, image.resize) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "crop")


def test_nothing_but_the_part_that_is_read_is_built(make):
    names = [*make(layer=-2).state_dict()]
    assert not [name for name in names if name.startswith(("trunk.norm.", "trunk.ln_post", "trunk.proj", "trunk.head"))]
    siglip = timm_tower("vit_so400m_patch14_siglip_384")
    assert not [name for name in siglip.state_dict() if "attn_pool" in name]


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-5), ("bfloat16", 2e-2)])
def test_a_packed_tower_has_the_numbers_of_a_plain_one(make, monkeypatch, dtype, tolerance):
    monkeypatch.setattr(fast, "is_faster", fast.can_pack)
    plain, packed = twins(make, {"dtype": dtype}, {"dtype": dtype, "prepack_weights": True})
    layers = [part for part in packed.modules() if isinstance(part, (PackedLinear, PackedAttention))]
    images = torch.randn(2, 3, 32, 32)

    def packed_now():
        kept = [pack for part in layers for pack in (part.kept if isinstance(part.kept, tuple) else [part.kept])]
        return [pack.entry is not None for pack in kept]

    def same():
        torch.testing.assert_close(packed(images), plain(images), atol=tolerance, rtol=tolerance)

    same()
    assert not any(packed_now()), "nothing is packed where gradients are wanted"
    packed(images).sum().backward()
    with torch.no_grad():
        same()
        assert len(packed_now()) == 3 * 4
        assert all(packed_now()) == fast.can_pack(getattr(torch, dtype or "float32"))
        weights = {name: 1.1 * value for name, value in plain.state_dict().items()}
        plain.load_state_dict(weights)
        packed.load_state_dict(weights)
        same()
        assert torch.equal(copy.deepcopy(packed)(images), packed(images))


def test_a_packed_attention_that_is_asked_for_more_is_an_ordinary_one():
    attention = nn.MultiheadAttention(24, 2, batch_first=True).eval()
    x, mask = torch.randn(2, 5, 24), torch.ones(5, 5).triu(1).bool()
    packed = copy.deepcopy(attention)
    prepack(packed)
    assert isinstance(packed, PackedAttention)
    with torch.no_grad():
        for options in ({"need_weights": True}, {"need_weights": False, "attn_mask": mask}, {"need_weights": False}):
            for found, expected in zip(packed(x, x, x, **options), attention(x, x, x, **options), strict=True):
                assert (found is None) == (expected is None)
                if found is not None:
                    torch.testing.assert_close(found, expected)
        found = packed(x, x[:, :3], x[:, :3], need_weights=False)[0]
        torch.testing.assert_close(found, attention(x, x[:, :3], x[:, :3], need_weights=False)[0])


FAULTS = [
    (lambda: timm_tower(layer=3), "layer (3) must lie between -3 and 2: the tower has 3 blocks"),
    (lambda: clip_vit(layer=-4), "layer (-4) must lie between -3 and 2: the tower has 3 blocks"),
    (lambda: timm_tower("vit_so400m_patch14_siglip_384", cls="first"), "cls ('first') needs a class token"),
    (lambda: timm_tower(dynamic=True, pos_interp="plain"), "pos_interp (plain) excludes dynamic"),
    (lambda: timm_tower("samvit_base_patch16", dynamic=True), "timm cannot build samvit_base_patch16 with"),
    (lambda: timm_tower("vit_large_patch14_clip_quickglu_336"), "near to it: vit_large_patch14_clip_quickgelu_336"),
    (lambda: timm_tower("hf-hub:timm/test"), "must be in timm.list_models()"),
    (lambda: timm_tower(pretrained="opnai"), "near to it: vit_large_patch14_clip_quickgelu_336.openai"),
    (lambda: timm_tower("resnet18", arch=None, size=None, depth=None), "resnet18 has no patches and blocks"),
    (lambda: timm_tower(arch={"heads": 3}), "timm cannot build"),
    (lambda: clip_vit(name="ViT-L-14-336-quickglu"), "near to it: ViT-L-14-336-quickgelu"),
    (lambda: clip_vit(name="EVA02-E-14"), "is eva02_enormous_patch14_clip_224 of timm; take TimmViT"),
    (lambda: clip_vit(name="RN50"), "the image tower of RN50 is a ResNet"),
    (lambda: clip_vit(arch={"heads": 3}), "open_clip cannot build a tower with"),
    (lambda: clip_vit(name="ViT-L-14-336", pretrained="openai"), "need QuickGELU: take ViT-L-14-336-quickgelu"),
    (lambda: timm_tower()(torch.zeros(1, 3, 40, 32)), "image size (40 x 32) must be 32 x 32"),
    (lambda: timm_tower(dynamic=True)(torch.zeros(1, 3, 40, 33)), "(40 x 33) must be a multiple of patch (8)"),
    (lambda: TimmFeatures(layer=6), "layer (6) must lie between -6 and 5: there are 6 maps"),
    (lambda: TimmFeatures(layer=[]), "layer must name a map"),
    (lambda: TimmFeatures(size=100), "image size (100 x 100) must be a multiple of patch (32)"),
    (lambda: TimmFeatures(name="vit_tiny_patch16_224"), "for a transformer use TimmViT"),
    (lambda: PatchEmbed(size=33, patch=8), "image size (33) must be a multiple of patch (8)"),
    (lambda: PatchEmbed(width=30, positions="sincos"), "width (30) must be a multiple of 4"),
    (lambda: PatchEmbed()(torch.zeros(1, 3, 64, 64)), "(64 x 64) must be 128 x 128, for which positions are learned"),
    (lambda: PatchEmbed(positions="none").layout(64, 65), "(64 x 65) must be a multiple of patch (16)"),
]


@pytest.mark.parametrize(("do", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_errors_name_the_fault_and_the_way_out(do, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        do()


TOWER = {"trunk": nn.Identity(), "width": 8, "stride": 1, "image": ImageSpec((4, 4))}


@pytest.mark.parametrize(
    ("part", "knobs", "message"),
    [
        (Tower, {**TOWER, "cls": "middle"}, "cls ('middle')"),
        (Tower, {**TOWER, "dtype": "int8"}, "dtype ('int8') must be float32, bfloat16 or float16"),
        (TimmViT, {"pos_interp": "linear"}, "pos_interp ('linear') must be antialias or plain"),
        (OpenCLIPViT, {"pos_interp": "linear"}, "pos_interp ('linear') must be antialias or plain"),
        (TimmFeatures, {"join": "add"}, "join ('add') must be unshuffle or pool"),
        (PatchEmbed, {"positions": "rope"}, "positions ('rope') must be learned, sincos or none"),
    ],
)
def test_choices_are_checked_where_no_type_checker_runs(part, knobs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        unwrap(part.__init__)(part.__new__(part), **knobs)


def test_constructing_downloads_nothing(monkeypatch):
    """A tag only chooses how the images must look."""
    monkeypatch.setattr("timm.models.load_state_dict_from_hf", None)
    tower = timm_tower("vit_so400m_patch14_siglip_378", pretrained="webli")
    assert tower.trunk.pretrained_cfg["tag"] == "webli"


@pytest.mark.parametrize(
    ("part", "arch", "message"),
    [
        (timm_tower, {"checkpoint_path": "/tmp/weights.pth"}, "arch.checkpoint_path: it is no size of the model"),
        (timm_tower, {"pretrained_cfg": {"file": "weights.pth"}}, "arch.pretrained_cfg: it is no size of the model"),
        (timm_tower, {"cache_dir": "cache"}, "arch.cache_dir: it is no size of the model"),
        (timm_tower, {"norm_layer": "../norm"}, "arch.norm_layer: expected a number or a word, got '../norm'"),
        (clip_vit, {"timm_model_name": "resnet18"}, "arch.timm_model_name: it is no size of the model"),
        (clip_vit, {"timm_model_pretrained": True}, "arch.timm_model_pretrained: it is no size of the model"),
        (clip_vit, {"act_kwargs": {"file": "a/b"}}, "arch.act_kwargs: expected a number or a word"),
    ],
)
def test_options_that_read_files_are_refused(part, arch, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        part(arch=arch)


def test_a_fault_while_timm_builds_a_known_model_is_named(monkeypatch):
    def create_model(name, **options):
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr("timm.create_model", create_model)
    with pytest.raises(ValueError, match=r"timm cannot build vit_tiny_patch16_224 .*: RuntimeError: Tensor\.item\(\)"):
        timm_tower("vit_tiny_patch16_224")
