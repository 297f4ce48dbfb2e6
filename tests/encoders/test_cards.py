"""Every encoder card keeps the contract of an encoder, and the published ones their published sizes."""

import copy
from functools import cache

import pytest
import torch

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.types import Encoder

CARDS = sorted(path.stem for path in (conf_dir() / "encoder").glob("*.yaml"))
SMALL = [name for name in CARDS if "tiny" in name and name != "vit_tiny"] + ["efficientnet_lite0_joined"]

# tokens, width, parameters in millions where they are published for just this part of the model
PUBLISHED = {
    "clip_b32_224": (49, 768, None),
    "clip_l14_224": (256, 1024, None),
    "clip_l14_224_normed": (256, 1024, 303.18),
    "clip_l14_224_openclip": (256, 1024, None),
    "clip_l14_336": (576, 1024, None),
    "clip_l14_336_openclip": (576, 1024, None),
    "clip_l14_336_v5": (577, 1024, None),
    "clip_l14_336_v6": (577, 1024, 303.51),
    "dinosiglip_384": (729, 1024 + 1152, None),
    "dinov2_l14_518": (1369, 1024, None),
    "dinov2_l14_reg4_384": (729, 1024, None),
    "dinov2_l14_reg4_448": (1024, 1024, None),
    "efficientnet_lite0": (49, 1280, 3.37),
    "efficientnet_lite0_128": (16, 1280, None),
    "efficientnet_lite0_fine": (64, 112, None),
    "efficientnet_lite0_joined": (16, 1280 + 4 * 112, 3.37),
    "efficientnet_lite0_scratch": (49, 1280, None),
    "eve": (1 + 24 * 25, 1024, 9.00),
    "eve_hd": (1 + 48 * 49, 1024, 9.00),
    "eva02_e14_224": (256, 1792, None),
    "eva02_e14_490": (1225, 1792, 4282.53),
    "eva02_l14_336": (576, 1024, None),
    "eva_g14_224": (257, 1408, 985.90),
    "eva_g14_448": (1024, 1408, None),
    "fuyu": (36 * 64, 2700, 0),
    "internvit_6b_448": (1024, 3200, 5536.5),
    "openclip_bigg14_224": (256, 1664, None),
    "openclip_bigg14_224_openclip": (256, 1664, None),
    "openclip_bigg14_448": (1024, 1664, None),
    "openclip_g14_224": (256, 1408, None),
    "openclip_h14_224": (256, 1280, None),
    "openclip_h14_224_openclip": (256, 1280, None),
    "patch": (64, 256, None),
    "patchify": (36 * 64, 2700, 0),
    "slots": (32, 512, None),
    "state": (4, 512, None),
    "tri_448": (1024, 3200, None),
    "tri_448_quarters": (1024, 6400, None),
    "siglip2_b16_256": (256, 768, None),
    "siglip2_b16_256_regions": (64 * 256, 768, None),  # of the largest image
    "siglip2_b16_256_regions_v702": (64 * 256, 768, None),
    "clip_l14_336_anyres": (576 + 48 * 48, 1024, None),  # of a square image
    "clip_l14_336_frames": (4 * 576, 1024, None),
    "siglip2_b16_256_frames": (4 * 256, 768, None),
    "vision_rwkv": (256, 768, None),
    "vit_22b14_224": (256, 6144, 21750.86),
    "vit_e14_224": (256, 1792, 3805.42),
    "qwen25_h14": (65536, 1280, None),
    "qwen35_b16": (65536, 768, None),
    "qwen35_l16": (65536, 1024, None),
    "qwen35_so16": (65536, 1152, None),
    "sam_b16_1024": (4096, 256, 89.67),
    "siglip2_b16_384": (576, 768, None),
    "siglip2_so400m_224": (256, 1152, None),
    "siglip2_so400m_378": (729, 1152, None),
    "siglip_so400m_224": (256, 1152, None),
    "siglip_so400m_378": (729, 1152, None),
    "siglip_so400m_384": (729, 1152, None),
    "siglip_so400m_384_timm": (729, 1152, None),
    "siglip_so400m_448": (1024, 1152, None),
    "vit_small": (196, 384, 21.67),
    "vit_tiny": (64, 192, None),
    "whisper_large_v3": (1500, 1280, None),
    "whisper_small": (1500, 768, None),
}
HALF = (0.5, 0.5, 0.5)
CLIP = (0.48145466, 0.4578275, 0.40821073)
IMAGENET = (0.485, 0.456, 0.406)
MEANS = {
    **dict.fromkeys(("clip_l14_336_anyres", "siglip2_b16_256_regions"), (0.0, 0.0, 0.0)),  # the tower's come later
    "vision": IMAGENET,
    "fuyu": HALF,
    "state": HALF,
    "slots": HALF,
    "whisper": HALF,
    "qwen35": HALF,
    "tri": (0.0, 0.0, 0.0),
    "dinosiglip": (0.0, 0.0, 0.0),
    "intern": IMAGENET,
    "vit_e": CLIP,
    "siglip": HALF,
    "efficientnet": HALF,
    "patch": HALF,
    "dinov2": IMAGENET,
    "sam": IMAGENET,
    "vit": HALF,
}
CROPPED = ("clip_b32_224", "clip_l14_224", "clip_l14_336_v")
OWN = {
    "clip_l14_336_anyres": "within",
    "clip_l14_336_frames": "pad",
    "tri_448_quarters": "within",
    "siglip2_b16_256_regions": "regions_closest",
    "siglip2_b16_256_regions_v702": "regions_smallest",
    "clip_l14_224_normed": "crop_rounded",
    "eve": "fit",
    "eve_hd": "fit",
    "fuyu": "within",
    "state": "none",
    "slots": "none",
    **dict.fromkeys(("qwen25_h14", "qwen35_b16", "qwen35_l16", "qwen35_so16"), "area"),
    "whisper_large_v3": "none",
    "whisper_small": "none",
}
PADDED = ("clip_l14_336", "clip_l14_336_openclip", "eva02_l14_336")


@cache
def card(name):
    return plain(compose(config=f"encoder/{name}"))["encoder"]


@pytest.fixture(params=SMALL)
def encoder(request):
    return instantiate(card(request.param))


def make_image(encoder, count=2):
    channels = () if encoder.image.resize == "none" else (3,)
    return torch.randn(count, *channels, *encoder.image.size)


def parameters(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


def shortened(name):
    """The card with two blocks: more of them change no shape."""
    content = card(name)
    return {**content, "depth": 2} if "depth" in content else content


def test_every_published_card_is_compared():
    assert set(PUBLISHED) | set(SMALL) == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_without_memory(name):
    """Layout and width are those of the tokens that come out, at full width and size."""
    with torch.device("meta"):
        encoder = instantiate(shortened(name))
        tokens = encoder(make_image(encoder, 1))
    assert isinstance(encoder, Encoder)
    layout = encoder.layout(*encoder.image.size)
    assert tokens.shape == (1, layout.tokens, encoder.width)
    assert (layout.patch_indices() < layout.tokens).all()
    if name in PUBLISHED:
        assert (layout.tokens, encoder.width) == PUBLISHED[name][:2]
        image = encoder.image
        assert image.mean == next((mean for family, mean in MEANS.items() if name.startswith(family)), CLIP)
        resize = OWN.get(name) or ("pad" if name in PADDED else "crop" if name.startswith(CROPPED) else "squash")
        assert image.resize == resize
        kind = "bilinear" if name == "fuyu" else "lanczos" if "_regions" in name else "bicubic"
        assert image.interpolation == kind


@pytest.mark.parametrize("name", [name for name, (*_, millions) in PUBLISHED.items() if millions is not None])
def test_published_size(name):
    with torch.device("meta"):
        encoder = instantiate(card(name))
    assert round(parameters(encoder) / 1e6, 2) == PUBLISHED[name][2]


def test_where_the_class_token_stands():
    for name, prefix, suffix in (("clip_tiny", 0, 0), ("clip_tiny_v5", 1, 0), ("clip_tiny_v6", 0, 1)):
        layout = instantiate(card(name)).layout(32, 32)
        assert (layout.rows, layout.cols, layout.prefix, layout.suffix) == (4, 4, prefix, suffix)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("clip_b32", "sam", "vit_small"))])
def test_at_full_size(name):
    encoder = instantiate(card(name)).eval()
    with torch.no_grad():
        assert encoder(make_image(encoder, 1)).isfinite().all()


def test_images_do_not_mix(encoder):
    encoder.eval()
    images = make_image(encoder, 3)
    torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), rtol=1e-4, atol=1e-5)


def test_frozen_is_deterministic(encoder):
    """In training too, when nothing of it is trained: batch norms keep their statistics."""
    encoder.requires_grad_(False)
    before = copy.deepcopy(encoder.state_dict())
    images = make_image(encoder)
    expected = encoder.eval()(images)
    encoder.train()
    found = encoder(images)
    assert torch.equal(encoder(images), found)
    torch.testing.assert_close(found, expected)  # in eval mode PyTorch takes a faster attention
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_gradients_reach_everything(encoder):
    for value in encoder.parameters():  # a fresh RNN writes nothing: its output matrices are zero
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.1)
    images = make_image(encoder).requires_grad_()
    tokens = encoder(images)
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert images.grad.abs().sum() > 0
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_half_precision(encoder):
    encoder.to(torch.bfloat16)
    assert encoder(make_image(encoder).bfloat16()).dtype == torch.bfloat16


def test_copies_and_state_dict(encoder):
    encoder.eval()
    images = make_image(encoder)
    expected = encoder(images)
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_()
    twin.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(twin(images), expected)
