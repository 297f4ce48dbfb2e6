"""Every class and function that a card names, cards inside cards included, fulfils the contract of its group."""

from functools import cache
from inspect import get_annotations, isabstract, isclass

import pytest
import torch
import yaml

from mmrnn.backbones.mixer import Mixer
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import find_target, instantiate
from mmrnn.config.skip_init import SkipInit
from mmrnn.config.tree import cards, plain
from mmrnn.config.validate import CONTRACTS
from mmrnn.evaluation.metrics.items import Metric
from mmrnn.evaluation.tasks import QuestionReader, RetrievalTask, Submission, Task
from mmrnn.evaluation.tasks.readers import References
from mmrnn.model.build import build
from mmrnn.training.build import make_objective
from mmrnn.types import (
    Backbone,
    Batching,
    Connector,
    Encoder,
    MapDataset,
    Objective,
    Quantizer,
    Scan,
    TextConnector,
    Tiling,
    fulfils,
    implements,
    parts,
)

INSIDE = {
    "backbone": (Mixer,),
    "prompt": CONTRACTS["prompt"],
    "encoder": (Encoder, Tiling, Backbone, Scan),
    "connector": (Connector, Backbone, Scan),
    "data": CONTRACTS["data"],
    "objective": (Objective, Encoder),  # parts of a sum, and a teacher
    "task": (QuestionReader, References, Metric, Submission),
}
"""Contracts of the cards inside a card of a group."""

FOR_TRAINING = {"stage"}
"""The group whose cards name no part."""

OF_SEVERAL = {"modalities", "model", "recipe", "sweep", "hydra"}
"""Groups that choose cards of others."""

OF_RUNS = {"task": (Task, RetrievalTask)}
"""Groups of which a run may choose several options, and that name no part of a model."""

READ_FROM_CLASSES = {
    parts.Backbone: ("recurrent", "generates", "hooks", "axes"),
    parts.Hook: ("needs", "needs_cross_attention_tokens"),
    parts.Connector: ("for_cross_attention",),
    parts.Scan: ("reorders",),
    parts.Position: ("axes", "sequential"),
    parts.Mask: ("causal",),
    Batching: ("packs",),
    Quantizer: ("quantizes",),
}
"""Attributes that `mmrnn.config.compatibility` reads without building anything."""


def named_targets():
    """(card, group, path inside the card, target) of every card in `conf/`; inherited ones stand in another file."""
    for path in sorted(conf_dir().glob("*/*.yaml")):
        group = path.parent.name
        if group not in FOR_TRAINING | OF_SEVERAL:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            for place, card in cards(content):
                yield f"{group}/{path.stem}", group, place, card


@cache
def composed(name: str):
    return plain(compose(config=name))[name.partition("/")[0]]


def options(group: str, ending: str = "") -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem.endswith(ending))


def attributes(contract: type) -> set[str]:
    """Attributes of a contract, those of the contracts that it extends included."""
    return {name for base in contract.__mro__ for name in get_annotations(base) if not name.startswith("_")}


def check_instance(part, contracts: tuple[type, ...]) -> None:
    """The part is an instance of one of the contracts, and has all of its attributes."""
    [contract] = [contract for contract in contracts if isinstance(part, contract)]
    narrower = [base for base in (TextConnector,) if isinstance(part, base)]
    for name in attributes(contract).union(*map(attributes, narrower)):
        getattr(part, name)


def test_every_group_has_a_contract():
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    assert groups - FOR_TRAINING - OF_SEVERAL - set(OF_RUNS) == set(CONTRACTS)


def test_every_target_fulfils_its_contract():
    for name, group, place, card in named_targets():
        target = find_target(card)
        wanted = INSIDE[group] if place else {**CONTRACTS, **OF_RUNS}[group]
        [contract] = [contract for contract in wanted if fulfils(target, contract)]
        assert not (isclass(target) and isabstract(target)), f"{name}: {target} leaves out {target.__abstractmethods__}"
        for attribute in READ_FROM_CLASSES.get(contract, ()):
            assert hasattr(target, attribute), f"{name}: {target} has no {attribute}"


@pytest.mark.parametrize("name", options("encoder", "_tiny"))
def test_tiny_encoders(name):
    check_instance(instantiate(composed(f"encoder/{name}")), CONTRACTS["encoder"])


@pytest.mark.parametrize("name", options("connector"))
def test_connectors(name):
    in_dim, out_dim = (64, 64) if name == "identity" else (96, 64)
    with torch.device("meta"), SkipInit():
        check_instance(instantiate(composed(f"connector/{name}"), in_dim, out_dim), CONTRACTS["connector"])


@pytest.mark.parametrize("name", options("backbone", "_tiny"))
def test_tiny_backbones(name):
    check_instance(instantiate(composed(f"backbone/{name}")), CONTRACTS["backbone"])


@pytest.mark.parametrize("group", ["scan", "position", "mask", "prompt", "data", "adapter", "quantize", "batching"])
def test_parts_without_sizes(group):
    for name in options(group):
        card = composed(f"{group}/{name}")
        if card.get("parts") == {}:  # the mixture that users fill
            card = {**card, "parts": {"one": composed("data/demo")}}
        check_instance(instantiate(card), CONTRACTS[group])


@pytest.mark.parametrize("name", options("optimizer"))
def test_optimizers(name):
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    weight = torch.nn.Parameter(torch.ones(3, 3))
    groups = [{"params": [weight], "hidden": True, "lr_mult": 1.0, "decays": True}]
    check_instance(instantiate(composed(f"optimizer/{name}"))(groups, 0.1), CONTRACTS["optimizer"])


@pytest.mark.parametrize("name", options("schedule"))
def test_schedules(name):
    check_instance(instantiate(composed(f"schedule/{name}")), CONTRACTS["schedule"])


def test_the_tokenizer_without_files():
    check_instance(instantiate(composed("tokenizer/demo")), CONTRACTS["tokenizer"])


@pytest.mark.parametrize("name", ["tiny_attention_tiny", "mlp_expert", "visual_expert", "gated_cross_attention_tiny"])
def test_hooks(name):
    backbone = instantiate(composed("backbone/rwkv6_tiny" if name == "mlp_expert" else "backbone/transformer_tiny"))
    check_instance(instantiate(composed(f"hook/{name}"), backbone, backbone.width), CONTRACTS["hook"])


@pytest.mark.parametrize(
    ("preset", "names"), [("blip2_stage1", ["blip2_tiny"]), ("eve_tiny", ["eve_tiny", "lm", "lm_token", "visualrwkv"])]
)
def test_objectives(preset, names):
    small = ["connector=qformer_text_tiny", "encoder=eva_tiny"] if preset == "blip2_stage1" else []
    model = build(compose(f"model={preset}", "weights={}", *small))
    for name in names:
        objective = make_objective(composed(f"objective/{name}"), model)
        for _, term in objective.terms():
            check_instance(term, CONTRACTS["objective"])
        check_instance(objective, CONTRACTS["objective"])


def test_a_function_gets_the_attributes_of_its_contract():
    @implements(parts.Position, axes=2)
    def position(sequence, start=None):
        return None

    assert isinstance(position, parts.Position)
    assert (position.axes, position.sequential) == (2, False)
    assert fulfils(position, parts.Position)
    assert not fulfils(position, parts.Mask)
    with pytest.raises(TypeError, match="Mask has no attribute axes; it has causal"):
        implements(parts.Mask, axes=2)


def test_images_and_held_out_samples_are_optional():
    class Two(MapDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return index

    assert (list(Two().images()), Two().held_out(3)) == ([], {})
    with pytest.raises(TypeError, match="__getitem__"):
        type("One", (MapDataset,), {"__len__": lambda self: 1})()
