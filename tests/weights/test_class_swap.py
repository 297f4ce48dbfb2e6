"""Loading after wrappers have swapped the classes of modules, as FSDP2's `fully_shard` does."""

import pytest
import torch
from torch import nn

from mmrnn import weights
from mmrnn.config.compose import compose
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM, Modality
from mmrnn.weights.export import export


class FSDPModule:
    """Stands for the mixin of FSDP2."""


def swap(module):
    """Give a module a class of its own that inherits from its former one."""
    kind = type(module)
    module.__class__ = type(f"FSDP{kind.__name__}", (FSDPModule, kind), {})


def swap_all(model):
    """Swap every block, every part and the model itself."""
    parts = [*model.weight_parts().values(), *model.modalities.values(), model]
    blocks = [module for module in model.backbone.modules() if isinstance(module, nn.ModuleList)]
    for module in [*(block for one in blocks for block in one), *parts]:
        swap(module)
    return model


def make(preset, seed):
    torch.manual_seed(seed)
    return build(compose(f"model={preset}"))


def same(one, other):
    theirs = other.state_dict()
    return one.state_dict().keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in one.state_dict().items()
    )


def published(preset, model):
    """The model in the layout of its project, all parts in one dictionary."""
    modality = model.modalities["image"]
    tower = {name.removeprefix("trunk."): value for name, value in modality.encoder.state_dict().items()}
    if preset == "llava_tiny":
        language, connector, prefix = export(model.backbone, "llama"), export(modality.connector, "llava"), "model."
        return language | connector | {f"{prefix}vision_tower.{name}": value for name, value in tower.items()}
    language = {f"rwkv.{name}": value for name, value in export(model.backbone, "rwkv6").items()}
    connector = {f"proj.{name}": value for name, value in export(modality.connector, "plain").items()}
    return language | connector | {f"vit.{name}": value for name, value in tower.items()}


PRESETS = ["visualrwkv6_tiny", "llava_tiny"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_whole_model(preset, tmp_path):
    source, plain, swapped = make(preset, 0), make(preset, 1), swap_all(make(preset, 1))
    assert type(swapped).__name__ == "FSDPVLM"
    assert isinstance(swapped, VLM)
    torch.save(published(preset, source), tmp_path / "theirs.pth")
    torch.save(source.state_dict(), tmp_path / "ours.pth")
    for file in ("theirs.pth", "ours.pth"):
        expected, report = weights.load(plain, tmp_path / file), weights.load(swapped, tmp_path / file)
        assert report == expected
        assert report.loaded == len(source.state_dict())
        assert same(swapped, source)
        assert same(plain, source)
        with torch.no_grad():
            for value in (*plain.parameters(), *swapped.parameters()):
                value.zero_()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_part(preset):
    source, target = make(preset, 0), swap_all(make(preset, 1))
    format = {"visualrwkv6_tiny": "rwkv6", "llava_tiny": "llama"}[preset]
    assert weights.load(target.backbone, export(source.backbone, format)).format == format
    assert same(target.backbone, source.backbone)
    assert export(target.backbone, format).keys() == export(source.backbone, format).keys()
    report = weights.load(target.modalities["image"], source.modalities["image"].state_dict())
    assert report.format == "mmrnn"
    assert isinstance(target.modalities["image"], Modality)


def test_a_source_that_is_offered_to_every_part():
    """Fuyu has no format of the whole: language model and projection each take their own tensors of one file."""
    pytest.importorskip("transformers")
    source, plain, swapped = make("fuyu_tiny", 0), make("fuyu_tiny", 1), swap_all(make("fuyu_tiny", 1))
    language = {name.replace("model.", "language_model.", 1): one for name, one in source.backbone.state_dict().items()}
    projection = source.modalities["image"].connector.part.proj.state_dict()
    tensors = language | {f"vision_embed_tokens.{name}": value for name, value in projection.items()}
    expected = weights.load(plain, tensors, strict=False)
    assert weights.load(swapped, tensors, strict=False) == expected
    assert expected.format == "hf_vlm, fuyu_hf"
    assert same(swapped.backbone, source.backbone)
    assert same(swapped.modalities["image"].connector.part, source.modalities["image"].connector.part)
