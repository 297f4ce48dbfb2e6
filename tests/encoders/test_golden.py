"""The towers against the projects that they come from, under every name that their weights go by."""

import pytest
import torch
from torch.nn.functional import pad

from mmrnn.encoders import FusedEncoder, OpenCLIPViT, Patchify, TimmViT
from mmrnn.weights import load

pytestmark = pytest.mark.golden

CLIP = "vit_large_patch14_clip_quickgelu_336"
EVA_G = "eva_giant_patch14_clip_224"
EVA_E = "eva02_enormous_patch14_clip_224"
SIGLIP = "vit_so400m_patch14_siglip_384"


def timm_tower(name, config, **knobs):
    """A tower of `name` with the sizes of a case."""
    sizes = {"patch_size": config["patch"], "embed_dim": config["width"], "num_heads": config["heads"]}
    arch = {**sizes, "mlp_ratio": config["ffn"] / config["width"], **knobs.pop("arch", {})}
    knobs = {"size": config["img"], "depth": config["layers"], "layer": -1, **knobs}
    return TimmViT(name=name, arch=arch, **knobs).eval()


def clip_vit(_, config, **knobs):
    arch = {"patch_size": config["patch"], "width": config["width"], "head_width": config["width"] // config["heads"]}
    arch["mlp_ratio"] = config["ffn"] / config["width"]
    knobs = {"size": config["img"], "depth": config["layers"], "layer": -1, **knobs}
    return OpenCLIPViT(arch=arch, **knobs).eval()


def vision(config):
    """The sizes of a tower in a case that is about more than the tower."""
    return {
        "img": config["img"],
        "patch": config["patch"],
        "width": config["v_width"],
        "layers": config["v_layers"],
        "heads": config["v_heads"],
        "ffn": config["v_ffn"],
    }


def visual_config(config):
    """The sizes in the words of Hugging Face."""
    return {
        "img": config["image_size"],
        "patch": config["patch_size"],
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "ffn": config["intermediate_size"],
    }


def close(tower, pixels, expected, atol=2e-5):
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), expected, rtol=1e-5, atol=atol)


@pytest.fixture(params=["timm", "clip"])
def make(request):
    return {"timm": timm_tower, "clip": clip_vit}[request.param]


@pytest.fixture(params=["hf", "hf bare", "timm", "open_clip", "open_clip bare"])
def clip(request, golden, params):
    """The case of CLIP under one of its names."""
    meta, tensors = golden("enc_clip")
    scheme, _, bare = request.param.partition(" ")
    named = params(tensors, f"param/{scheme}/")
    if bare:
        named = {name.partition(".")[2]: value for name, value in named.items()}
    return meta["config"], tensors, named


def test_clip(make, clip):
    config, tensors, named = clip
    for block in range(config["layers"]):
        tower = make(CLIP, config, layer=block, cls="first")
        report = load(tower, named)
        assert bool(report.notes) is True
        close(tower, tensors["in/pixels"], tensors[f"out/hidden_{block + 1}"])
    tower = make(CLIP, config, layer=-2)
    load(tower, named)
    close(tower, tensors["in/pixels"], tensors["out/penultimate_patches"])
    tower = make(CLIP, config, layer=-2, cls="last")
    load(tower, named)
    expected = torch.cat((tensors["out/penultimate_patches"], tensors["out/penultimate_prefix"]), dim=1)
    close(tower, tensors["in/pixels"], expected)


def test_clip_normed(make, clip):
    config, tensors, named = clip
    tower = make(CLIP, config, norm=True, cls="first")
    assert load(tower, named).notes == []
    close(tower, tensors["in/pixels"], tensors["out/last_normed"])
    tower = make(CLIP, config, norm=True)
    load(tower, named)
    close(tower, tensors["in/pixels"], tensors["out/open_clip_tokens"])


def test_clip_with_the_wrong_activation(make, clip):
    config, tensors, named = clip
    tower = make(CLIP, config, layer=-2, act="gelu")
    load(tower, named)
    close(tower, tensors["in/pixels"], tensors["out/penultimate_patches_erf"])
    difference = tensors["out/penultimate_patches_erf"] - tensors["out/penultimate_patches"]
    assert difference.abs().max() > 1e-3


def test_clip_on_another_grid(make, clip):
    config, tensors, named = clip
    size = config["grid2"] * config["patch"]
    for how, key in (("antialias", "out/pos_resampled_antialias"), ("plain", "out/pos_resampled_plain")):
        tower = make(CLIP, config, layer=-2, size=size, pos_interp=how)
        report = load(tower, named)
        old, new = config["img"] // config["patch"], config["grid2"]
        assert f"resampled from {old} x {old} to {new} x {new} ({how} bicubic)" in " ".join(report.notes)
        tables = [value for name, value in tower.named_parameters() if "pos" in name]
        torch.testing.assert_close(tables[0].data.reshape(tensors[key].shape), tensors[key], rtol=0, atol=1e-6)
        if how == "antialias":
            close(tower, tensors["in/pixels_large"], tensors["out/penultimate_large"])


def test_clip_of_any_size(clip):
    """Read at sizes it was not built for, as if it had been built for them."""
    config, tensors, named = clip
    tower = timm_tower(CLIP, config, layer=-2, dynamic=True)
    load(tower, named)
    close(tower, tensors["in/pixels"], tensors["out/penultimate_patches"])
    close(tower, tensors["in/pixels_large"], tensors["out/penultimate_large"])


@pytest.mark.parametrize("scheme", ["hf", "timm"])
def test_siglip(golden, params, scheme):
    meta, tensors = golden("enc_siglip")
    for act, layer, norm, key in (
        ("gelu_tanh", -2, False, "penultimate"),
        ("gelu_tanh", -1, True, "last_normed"),
        (None, -2, False, "penultimate_erf"),
    ):
        tower = timm_tower(SIGLIP, meta["config"], act=act, layer=layer, norm=norm)
        load(tower, params(tensors, f"param/{scheme}/"))
        close(tower, tensors["in/pixels"], tensors[f"out/{key}"])


def test_eva_g(golden, params):
    meta, tensors = golden("enc_eva_g")
    config, lavis, norm = meta["config"], params(tensors, "param/lavis/"), params(tensors, "param/lavis_")
    tower = timm_tower(EVA_G, config, cls="first")
    load(tower, lavis)
    close(tower, tensors["in/pixels"], tensors["out/features"])
    tower = timm_tower(EVA_G, config, cls="first", extra_norm=True)
    load(tower, lavis | norm)
    close(tower, tensors["in/pixels"], tensors["out/features_ln_vision"])
    twin = timm_tower(EVA_G, config, cls="first", extra_norm=True)
    load(twin, {f"visual_encoder.{name}": value for name, value in lavis.items()} | norm)
    close(twin, tensors["in/pixels"], tensors["out/features_ln_vision"])
    large = timm_tower(EVA_G, config, cls="first", size=config["grid2"] * config["patch"], pos_interp="plain")
    load(large, lavis)
    torch.testing.assert_close(large.trunk.pos_embed.data, tensors["out/pos_resampled"], rtol=0, atol=1e-6)
    close(large, tensors["in/pixels_large"], tensors["out/features_large"])


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@pytest.mark.parametrize("norm", [{"norm": True}, {"extra_norm": 1e-6}], ids=["own norm", "extra norm"])
def test_eva_g_of_hugging_face(golden, params, prefix, norm):
    meta, tensors = golden("enc_eva_g")
    tower = timm_tower(EVA_G, meta["config"], cls="first", **norm)
    load(tower, {prefix + name: value for name, value in params(tensors, "param/hf/vision_model.").items()})
    close(tower, tensors["in/pixels"], tensors["out/hf_last_hidden"])


@pytest.mark.parametrize("scheme", ["timm", "cogvlm_hf"])
def test_eva02_e(golden, params, scheme):
    meta, tensors = golden("enc_eva02_e")
    config = meta["config"]
    for cls, parts in (("drop", ["patches"]), ("first", ["prefix", "patches"])):
        tower = timm_tower(EVA_E, config, layer=-2, cls=cls)
        load(tower, params(tensors, f"param/{scheme}/"))
        expected = torch.cat([tensors[f"out/penultimate_{part}"] for part in parts], dim=1)
        close(tower, tensors["in/pixels"], expected)
    if scheme == "timm":
        tower = timm_tower(EVA_E, config, cls="first", norm=True)
        load(tower, params(tensors, "param/timm/"))
        close(tower, tensors["in/pixels"], tensors["out/last_normed"])


@pytest.mark.parametrize("case", ["visualrwkv6_bi", "visualrwkv5_scan"])
def test_visualrwkv(golden, params, make, case):
    meta, tensors = golden(case)
    config = visual_config(meta["config"]["vision"])
    named = params(tensors, "param/vit.")
    named["vision_model.embeddings.position_ids"] = torch.arange(len(tensors["out/vit_features"][0]))[None]
    tower = make(CLIP, config, cls="first")
    report = load(tower, named)
    assert report.ignored == {"vision_model.embeddings.position_ids": "computed, not loaded"}
    assert report.notes == ["the final norm was left out: the tower ends before it"]
    pixels, features = tensors["in/images"][:, 0], tensors["out/vit_features"]
    close(tower, pixels, features)
    tower = make(CLIP, config, cls="last")
    load(tower, named)
    close(tower, pixels, features.roll(-1, dims=1))


def test_cogvlm(golden, params):
    meta, tensors = golden("cogvlm_expert")
    config = vision(meta["config"])
    sat = params(tensors, "param/mixins.eva.vit_model.")
    prefixed = {f"mixins.eva.vit_model.{name}": value for name, value in sat.items()}
    hub = {meta["hf_names"][name]: value for name, value in prefixed.items()}
    hub["model.vision.boi"] = torch.zeros(1, 1, config["width"])
    for named in (sat, prefixed, hub):
        tower = timm_tower(EVA_E, config)
        load(tower, named)
        close(tower, tensors["in/pixel_values"], tensors["out/vit_features"])


def test_visualglm(golden, params):
    meta, tensors = golden("visualglm")
    tower = timm_tower(EVA_G, vision(meta["config"]), cls="first", extra_norm=True)
    load(tower, params(tensors, "param/mixins.eva.model.vit."))
    close(tower, tensors["in/pixels"], tensors["out/vit_features"])


def test_blip2(golden, params):
    """Out of the file of the whole model."""
    meta, tensors = golden("blip2_hf")
    tower = timm_tower(EVA_G, vision(meta["config"]), cls="first", extra_norm=1e-6)
    report = load(tower, params(tensors))
    assert set(report.ignored.values()) == {"belongs to the connector", "belongs to the language model"}
    close(tower, tensors["in/pixel_values"], tensors["out/vision_last_hidden"])


def test_qwen_vl(golden, params):
    meta, tensors = golden("qwen_visual")
    config = meta["config"] | {"ffn": meta["config"]["width"] * meta["config"]["mlp_ratio"]}
    for index, size in enumerate(config["sizes"]):
        arch = {"class_token": False, "norm_layer": "layernorm"}
        tower = timm_tower("vit_gigantic_patch14_clip_224", config, size=size, pos_interp="plain", arch=arch)
        load(tower, params(tensors))
        close(tower, tensors[f"in/image_{index}"], tensors[f"out/vit_tokens_{index}"])


def test_prismatic(golden, params):
    """Two towers alone, and joined on the channels."""
    meta, tensors = golden("prismatic")
    towers, images = [], []
    for name, short, image in (("vit_large_patch14_reg4_dinov2", "d", "dino"), (SIGLIP, "s", "siglip")):
        config = {size: meta["config"][f"{short}_{size}"] for size in ("width", "layers", "heads")}
        config |= {size: meta["config"][size] for size in ("img", "patch")}
        config["ffn"] = config["width"] * meta["config"][f"{short}_mlp"]
        tower = timm_tower(name, config, layer=-2)
        load(tower, params(tensors, f"param/vision_backbone.{image}_featurizer."))
        close(tower, tensors[f"in/pixel_{image}"], tensors[f"out/{image}_patches"])
        towers.append(timm_tower(name, config, layer=-2))
        images.append(tensors[f"in/pixel_{image}"])
    fused = FusedEncoder(towers=towers).eval()
    whole = {name: value for name, value in params(tensors).items() if not name.startswith("alone_")}
    assert load(fused, whole).format == "prismatic"
    close(fused.join, images, tensors["out/fused_patches"])


def test_fuyu_patches(golden):
    """Images that are not scaled: filled up with 1 (of 255) at the right and below."""
    meta, tensors = golden("fuyu_hf")
    patch = meta["config"]["patch"]
    whole = [name for name, image in meta["images"].items() if image["scale_factor"] == 1]
    assert whole
    for name in whole:
        pixels = tensors[f"in/{name}"].float()
        height, width = pixels.shape[1:]
        pixels = pad(pixels, (0, -width % patch, 0, -height % patch), value=1.0) / 127.5 - 1
        encoder = Patchify(patch=patch, size=tuple(pixels.shape[1:]))
        expected = tensors[f"out/{name.replace('image', 'patches')}"]
        torch.testing.assert_close(encoder(pixels[None])[0], expected, rtol=0, atol=1e-6)
