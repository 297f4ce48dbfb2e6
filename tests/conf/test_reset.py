"""`reset` gives every part the tensors that its constructor gives it, from the same random numbers."""

from functools import cache

import pytest
import torch
import yaml
from torch import nn

from mmrnn.backbones import NoBackbone
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import find_target, instantiate, positional_names
from mmrnn.config.skip_init import SkipInit
from mmrnn.config.tree import cards, plain
from mmrnn.encoders import Patchify
from mmrnn.model.build import build
from mmrnn.types import reset_module

SMALL = {
    "QFormer": {"width": 16, "depth": 4, "heads": 2, "ffn": 24},
    "TextQFormer": {"width": 16, "depth": 4, "heads": 2, "ffn": 24, "vocab": 50},
    "Resampler": {"heads": 2},
    "TransformerProjector": {"heads": 2},
    "GLU": {"hidden": 40},
    "RWKV7": {"head_size": 8},
}
"""Sizes of connectors that are large otherwise."""

WITHOUT_TENSORS = {Patchify, NoBackbone}


@cache
def card(name: str):
    return plain(compose(config=name))[name.partition("/")[0]]


def shrunk(node):
    """The card with what is large in it made small."""
    if isinstance(node, list):
        return [shrunk(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: shrunk(value) for name, value in node.items()}
    return node | SMALL.get(node.get("_target_", "").rpartition(".")[2], {})


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    named = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return {name: value for group in named for name, value in group}


def check(make, reset=reset_module, seed: int = 3):
    """Compare a module that `make` constructs with one that it makes on the meta device and `reset` fills."""
    torch.manual_seed(seed)
    expected = make()
    after = torch.get_rng_state()
    with torch.device("meta"), SkipInit():
        found = make()
    found.to_empty(device="cpu")
    for value in tensors(found).values():
        value.detach().fill_(7)  # never what an initialiser gives, of any kind
    torch.manual_seed(seed)
    reset(found)
    assert torch.equal(torch.get_rng_state(), after)
    for name, value in tensors(expected).items():
        assert torch.equal(value, tensors(found)[name]), name
    assert tensors(found).keys() == tensors(expected).keys()


ENCODERS = [*(name for name in options("encoder") if "tiny" in name), "efficientnet_lite0_128", "patch", "slots"]
BACKBONES = [name for name in options("backbone") if "tiny" in name]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name):
    check(lambda: instantiate(card(f"encoder/{name}")))


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(name):
    check(lambda: instantiate(card(f"backbone/{name}")))


@pytest.mark.parametrize("name", options("connector"))
def test_connectors(name):
    in_dim, out_dim = (24, 24) if name == "identity" else (20, 24)
    check(lambda: instantiate(shrunk(card(f"connector/{name}")), in_dim, out_dim))


@pytest.mark.parametrize(("group", "tried"), [("encoder", ENCODERS), ("backbone", BACKBONES)])
def test_every_class_is_tried(group, tried):
    """Cards of one class differ in sizes. A card that inherits has the class of another one."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (conf_dir() / group).glob("*.yaml")]
    assert classes(files) - WITHOUT_TENSORS == classes(card(f"{group}/{name}") for name in tried) - WITHOUT_TENSORS


def classes(contents) -> set[type]:
    return {find_target(inner) for content in contents for _, inner in cards(content)}


def test_state_tuning():
    check(lambda: instantiate({**card("backbone/rwkv6_tiny"), "learned_state": True}))


@pytest.mark.parametrize("name", options("hook"))
def test_hooks(name):
    backbone = instantiate(
        card("backbone/rwkv6_tiny" if name in ("mlp_expert", "visual_channel_mix") else "backbone/transformer_tiny")
    )
    knobs = {"every": 1} if name.startswith("gated") else {"heads": 2} if name.startswith("tiny") else {}

    def reset(hook):
        reset_module(hook)
        hook.init_from(backbone)

    check(lambda: instantiate({**card(f"hook/{name}"), **knobs}, backbone, backbone.width), reset)


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("blip2_stage1", ["blip2_tiny"]),
        ("eve_tiny", ["classes", "contrastive", "eve_tiny", "lm", "lm_token", "visualrwkv"]),
    ],
)
def test_objectives(preset, names):
    small = ["connector=qformer_text_tiny", "encoder=eva_tiny"] if preset == "blip2_stage1" else []
    model = build(compose(f"model={preset}", "weights={}", *small))
    for name in names:
        objective = card(f"objective/{name}")
        wired = [model] if positional_names(find_target(objective)) else []
        if isinstance(instantiate(objective, *wired), nn.Module):
            check(lambda objective=objective, wired=wired: instantiate(objective, *wired))
        else:
            instantiate(objective, *wired).reset()


@pytest.mark.parametrize("name", options("adapter"))
def test_adapters(name):
    pytest.importorskip("peft")
    model = "visualrwkv6_tiny" if name in ("lora_rwkv", "state") else "llava15_tiny"
    added = "backbone.start" if name == "state" else "lora_"
    changed = build(compose(f"model={model}", "weights={}"))
    adapter = instantiate(card(f"adapter/{name}"))
    torch.manual_seed(3)
    adapter(changed)
    expected = {name: value.clone() for name, value in tensors(changed).items()}
    assert any(added in name for name in expected)
    with torch.no_grad():
        for key, value in tensors(changed).items():
            if added in key:
                value.fill_(7)
    torch.manual_seed(3)
    adapter.reset(changed)
    for key, value in tensors(changed).items():
        assert torch.equal(value, expected[key]), key


def test_a_module_with_tensors_and_without_reset_is_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(TypeError, match="Scaled has 'scale' of its own: give it a `reset`"):
        reset_module(nn.Sequential(nn.Linear(2, 2), Scaled()))
