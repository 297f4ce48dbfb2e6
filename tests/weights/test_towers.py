"""The name maps of towers: complete for the real sizes, unambiguous, linear, and clear about what is wrong."""

from copy import deepcopy
from functools import cache

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.encoders import FusedEncoder, OpenCLIPViT, TimmViT
from mmrnn.weights import Report, WeightsError, convert, load
from mmrnn.weights.formats.towers import FORMATS

ARCH = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
TINY = {"size": 32, "depth": 2, "arch": ARCH}


@cache
def card(name):
    return plain(compose(config=f"encoder/{name}"))["encoder"]


def converted(encoder, tensors):
    report = Report(format="")
    return convert(encoder, tensors, report=report), report


def complete(encoder, tensors):
    """Every tensor of the encoder is set, in its shape; an extra norm comes from elsewhere."""
    ready, report = converted(encoder, tensors)
    wanted = {name: value.shape for name, value in encoder.state_dict().items()}
    found = {name: value.shape for name, value in ready.items()}
    extra = {name for name in wanted if name.startswith("extra_norm.")}
    assert {name: shape for name, shape in wanted.items() if name not in extra | set(found)} == {}
    assert found == {name: shape for name, shape in wanted.items() if name in found}
    return report


OF_TIMM = (
    "clip_b32_224",
    "clip_l14_336",
    "dinov2_l14_reg4_448",
    "efficientnet_lite0",
    "efficientnet_lite0_fine",
    "eva02_e14_490",
    "eva02_l14_336",
    "eva_g14_448",
    "openclip_bigg14_448",
    "sam_b16_1024",
    "siglip_so400m_448",
    "vit_small",
)


@pytest.mark.parametrize("name", OF_TIMM)
def test_files_of_timm(name):
    """The whole published model, head and all, at the size at which it is published."""
    import timm

    with torch.device("meta"):
        encoder = instantiate(card(name))
        whole = timm.create_model(card(name)["name"]).state_dict()
    report = complete(encoder, whole)
    assert report.format == "timm"
    behind = card(name).get("depth") or card(name)["layer"] == -2
    assert any("blocks" in note for note in report.notes) == bool(behind) or name.startswith("efficientnet")


def hugging_face(kind, **sizes):
    """Names and shapes of a tower of Hugging Face at full size, as its files have them."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}VisionConfig")(**sizes)
    with torch.device("meta"):
        state = getattr(transformers, f"{kind}VisionModel")(config).state_dict()
    return {f"vision_model.{name.removeprefix('vision_model.')}": value for name, value in state.items()}


CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}


@pytest.mark.parametrize(
    ("name", "kind", "sizes", "format"),
    [
        ("clip_l14_336_v6", "CLIP", {**CLIP_L, "image_size": 336, "patch_size": 14}, "hf_clip"),
        ("clip_l14_336", "CLIP", {**CLIP_L, "image_size": 224, "patch_size": 14}, "hf_clip"),
        ("clip_l14_336_openclip", "CLIP", {**CLIP_L, "image_size": 336, "patch_size": 14}, "hf_clip"),
        ("siglip_so400m_384", "Siglip", {**SO400M, "image_size": 384, "patch_size": 14}, "hf_siglip"),
        ("eva_g14_448", "Blip2", {}, "blip2_hf"),
    ],
)
def test_files_of_hugging_face(name, kind, sizes, format):
    """With the prefix of the files, and without it as transformers 5 has the names in memory."""
    with torch.device("meta"):
        encoder = instantiate(card(name))
    tensors = hugging_face(kind, **sizes)
    assert complete(encoder, tensors).format == format
    assert complete(encoder, {key.removeprefix("vision_model."): one for key, one in tensors.items()}).format == format


def open_clip_visual(encoder):
    """Tensors that a file of open_clip has for this tower and beside it."""
    tensors = {f"visual.{name.removeprefix('trunk.')}": value for name, value in encoder.state_dict().items()}
    beside = ("visual.proj", "positional_embedding", "text_projection", "logit_scale", "token_embedding.weight")
    text = ("transformer.resblocks.0.ln_1.weight", "ln_final.weight")
    return tensors | {name: torch.zeros(4) for name in (*beside, *text)}


@pytest.mark.parametrize("target", [OpenCLIPViT, TimmViT])
def test_files_of_open_clip(target):
    knobs = {"size": 32, "depth": 2, "layer": -1, "norm": True}
    source = OpenCLIPViT(**knobs, arch={"patch_size": 8, "width": 24, "head_width": 12, "mlp_ratio": 2.0})
    encoder = source if target is OpenCLIPViT else TimmViT(**knobs, arch=ARCH)
    report = complete(encoder, open_clip_visual(source))
    assert report.format == "open_clip"
    assert len(report.ignored) == 7
    with_trunk = {f"visual.trunk.{name}": value for name, value in TimmViT(**TINY).trunk.state_dict().items()}
    assert complete(TimmViT(**TINY), with_trunk | {"visual.head.proj.weight": torch.zeros(2)}).notes == []


def test_files_of_sam():
    arch = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "window_size": 2, "global_attn_indexes": [1]}
    small = TimmViT(name="samvit_base_patch16", size=32, depth=2, layer=-1, norm=True, arch=arch)
    large = TimmViT(name="samvit_base_patch16", size=64, depth=2, layer=-1, norm=True, arch=arch)
    tensors = {
        f"image_encoder.{name.replace('mlp.fc', 'mlp.lin')}": value for name, value in large.trunk.state_dict().items()
    }
    report = complete(large, tensors | {"pixel_mean": torch.zeros(3), "mask_decoder.iou_token.weight": torch.zeros(2)})
    assert report.format == "sam"
    assert report.notes == []
    report = complete(small, tensors)
    assert report.notes == [
        "the position table was resampled from 8 x 8 to 4 x 4 (antialias bicubic)",
        "2 tables of relative positions were resampled (linear)",
    ]


def test_a_class_token_is_left_out_where_the_tower_has_none():
    """Qwen-VL starts from OpenCLIP bigG, without its class token."""
    whole = TimmViT(name="vit_gigantic_patch14_clip_224", **TINY, layer=-1)
    sizes = {**TINY, "arch": {**ARCH, "class_token": False, "norm_layer": "layernorm"}}
    bare = TimmViT(name="vit_gigantic_patch14_clip_224", **sizes, layer=-1)
    report = load(bare, whole.trunk.state_dict())
    assert report.notes == ["the class token was left out, and its position: the tower has none"]
    assert torch.equal(bare.trunk.pos_embed, whole.trunk.pos_embed[:, 1:])


def test_every_change_is_linear():
    """So gradients can go the same way as weights."""
    tower = TimmViT(name="eva_giant_patch14_clip_224", **TINY, layer=-1, extra_norm=True, pos_interp="plain")
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    shapes = hugging_face("Blip2", **sizes, image_size=24, patch_size=8)
    one, two = ({name: torch.randn(value.shape) for name, value in shapes.items()} for _ in range(2))
    sums = {name: 3 * one[name] - two[name] for name in one}
    first, second = converted(tower, one)[0], converted(tower, two)[0]
    for name, value in converted(tower, sums)[0].items():
        torch.testing.assert_close(value, 3 * first[name] - second[name], rtol=1e-4, atol=1e-5)


def test_formats_of_a_part_have_signatures_of_their_own():
    """No format is recognised by what another one is recognised by."""
    for one in FORMATS:
        for other in FORMATS:
            if one is not other and one.part == other.part:
                assert not set(one.signature) >= set(other.signature), f"{one.signature} would be {other.name} too"


def mismatch_message(encoder, tensors):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(WeightsError) as fault:
        load(encoder, tensors)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    return str(fault.value)


def test_what_is_missing_unexpected_or_misshaped_is_listed():
    encoder = TimmViT(**TINY, layer=-1)
    whole = encoder.trunk.state_dict()
    less = {name: value for name, value in whole.items() if name != "blocks.1.mlp.fc1.bias"}
    assert "missing: trunk.blocks.1.mlp.fc1.bias" in mismatch_message(encoder, less)
    assert "unexpected: trunk.blocks.0.gate" in mismatch_message(encoder, whole | {"blocks.0.gate": torch.zeros(1)})
    wrong = whole | {"pos_embed": torch.zeros(1, 8, 24)}
    assert "trunk.pos_embed: (1, 8, 24), the module has (1, 17, 24)" in mismatch_message(encoder, wrong)
    shallow = TimmViT(**{**TINY, "depth": 1}, layer=-1).trunk.state_dict()
    assert "missing: trunk.blocks.1.attn.proj.bias" in mismatch_message(encoder, shallow)
    assert "no format of TimmViT" in mismatch_message(encoder, {"somebody.elses": torch.zeros(1)})
    open_clip = {name: value for name, value in open_clip_visual(encoder).items() if "conv1" not in name}
    assert "no format of TimmViT" in mismatch_message(encoder, open_clip)


def test_a_tower_file_has_no_extra_norm():
    encoder = TimmViT(name="eva_giant_patch14_clip_224", **TINY, layer=-1, extra_norm=True)
    tensors = encoder.trunk.state_dict()
    message = mismatch_message(encoder, tensors)
    assert "missing: extra_norm.bias" in message
    assert "missing: trunk" not in message
    assert load(encoder, tensors, strict=False).loaded == len(tensors)
    norm = {"ln_vision.weight": torch.full((24,), 2.0), "ln_vision.bias": torch.zeros(24)}
    load(encoder, tensors | norm)
    assert (encoder.extra_norm.weight == 2.0).all()


@pytest.mark.parametrize(
    ("prefix", "names", "format"),
    [
        ("", ("dino", "siglip", "sam"), "visualrwkv"),
        ("vision_backbone.", ("dino", "siglip"), "prismatic"),
    ],
)
def test_towers_side_by_side(prefix, names, format):
    """VisualRWKV-HD and -7, and Prismatic, whose files hold a projector and a language model, too."""
    towers = instantiate(card("tri_tiny")).towers
    one, two = (FusedEncoder(towers=[make_like(tower) for tower in towers[: len(names)]]) for _ in range(2))
    tensors = {}
    for name, tower in zip(names, one.towers, strict=True):
        tensors |= {f"{prefix}{name}_featurizer.{key}": value for key, value in tower.trunk.state_dict().items()}
    beside = {"projector.projector.0.weight": torch.zeros(1)} if format == "prismatic" else {}
    report = load(two, tensors | beside)
    assert report.format == format
    assert set(report.ignored) == set(beside)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def make_like(tower):
    """Another one of these sizes, with other values."""
    twin = deepcopy(tower)
    for value in twin.parameters():
        torch.nn.init.normal_(value)
    return twin
