"""ModRWKV against its own code (golden `modrwkv`): adapters, text, and a whole file."""

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.model.build import build
from mmrnn.types import IGNORE, Layout, Turn
from mmrnn.weights import convert, load
from mmrnn.weights.export import export

GRID = Layout(4, 4)
ADAPTERS = {
    "siglip": ("modrwkv", GRID),
    "siglip_conv": ("modrwkv_conv", GRID),
    "auto_siglip2": ("modrwkv_auto", GRID),
    "clip": ("modrwkv_clip", GRID),
    "siglip2": ("modrwkv_merge", GRID),
    "whisper": ("modrwkv_speech", GRID),
}


def connector(name, config):
    return instantiate(plain(compose(config=f"connector/{name}"))["connector"], config["encoder"], config["n_embd"])


@pytest.mark.golden
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(golden, params, name):
    meta, tensors = golden("modrwkv")
    card, layout = ADAPTERS[name]
    adapter = connector(card, meta["config"])
    load(adapter, params(tensors, f"param/{name}/"))
    found = adapter(tensors["in/features"], layout)
    assert found.shape[1] == adapter.layout(layout).tokens
    torch.testing.assert_close(found, tensors[f"out/{name}"], atol=2e-5, rtol=0)
    (found * tensors[f"in/weights/{name}"]).sum().backward()
    expected = params(tensors, f"grad/{name}/")
    assert bool(expected) == (name != "siglip2")  # whose gradients the case does not have
    for key, value in (convert(adapter, expected) if expected else {}).items():
        grad = adapter.get_parameter(key).grad
        assert (grad - value).abs().max() <= 1e-4 * value.abs().max(), key


@pytest.mark.golden
def test_a_clip_of_odd_length(golden, params):
    meta, tensors = golden("modrwkv")
    adapter = connector("modrwkv_speech", meta["config"])
    assert load(adapter, params(tensors, "param/whisper/")).format == "modrwkv_proj"
    found = adapter(tensors["in/audio_features"], Layout(prefix=11))
    assert found.shape[1] == adapter.layout(Layout(prefix=11)).tokens == 7
    torch.testing.assert_close(found, tensors["out/whisper_odd"], atol=2e-5, rtol=0)


@pytest.mark.golden
def test_text(golden):
    """Ids and labels of dialogues; 65532 stands for a slot, and labels are already shifted."""
    meta, _ = golden("modrwkv")
    pytest.importorskip("pyrwkv_tokenizer")
    tokenizer, prompt = (
        instantiate(plain(compose(config=f"{group}/{name}"))[group])
        for group, name in (("tokenizer", "world_modrwkv"), ("prompt", "modrwkv"))
    )
    assert tokenizer.ends == (0, meta["text"]["prompt"]["stop"])

    def written(turns, images):
        ids, labels = [], []
        for span in prompt.spans(turns, images):
            found = [65532] * meta["config"]["tokens"] if span.image else tokenizer.encode(span.text)
            ids, labels = ids + found, labels + (found if span.target else [IGNORE] * len(found))
        return ids, labels

    for sample in meta["text"]["samples"]:
        turns = [
            Turn(one["from"], one["value"].replace("<|placeholder|>", "<image>")) for one in sample["conversations"]
        ]
        ids, labels = written(turns, sum("<image>" in turn.text for turn in turns))
        rest = len(sample["ids"]) - len(ids)
        assert ids + [0] * rest == sample["ids"]
        assert labels[1:] + [IGNORE] * (rest + 1) == sample["labels"]
    asked = meta["text"]["prompt"]
    assert written([Turn("user", f"<image>{asked['question']}"), Turn("assistant", "")], 1)[0] == asked["ids"]


def test_a_whole_file_opens():
    """`encoder.model.`, `proj.` and `llm.`, as its training writes them."""
    torch.manual_seed(0)
    model, other = (build(compose("model=modrwkv_tiny")) for _ in range(2))
    modality = model.modalities["image"]
    whole = {f"proj.{name}": value for name, value in export(modality.connector, "modrwkv").items()}
    whole |= {f"llm.{name}": value for name, value in export(model.backbone, "rwkv7").items()}
    assert {"proj.conv.weight", "proj.pre_norm.bias", "llm.head.weight"} < set(whole)
    report = load(other, whole, strict=False)
    assert report.format.startswith("modrwkv")
    for part in ("backbone", "modalities.image.connector"):
        ours, theirs = (one.get_submodule(part).state_dict() for one in (model, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
