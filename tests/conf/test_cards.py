"""`conf/` is the registry, so the tests enumerate it: a new card or preset is covered by being there."""

from functools import cache
from inspect import Parameter
from io import StringIO

import pytest
import torch
import yaml
from rich.console import Console
from torch.nn.functional import cross_entropy

from mmrnn.cli.show import count, describe, on_meta
from mmrnn.config.coerce import coerce
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import find_target, parameters
from mmrnn.config.tree import cards, is_card, plain
from mmrnn.config.validate import WIRED, card_faults, check
from mmrnn.inference.generate import generate
from mmrnn.model.build import build
from mmrnn.types import SLOT, Batch, ImageSpan, Sequence

OTHERS = ("hydra", "model", "recipe", "sweep")
PATHS = [path for path in sorted(conf_dir().glob("*/*.yaml")) if path.parent.name not in OTHERS]
CONTENT = {f"{path.parent.name}/{path.stem}": yaml.safe_load(path.read_text()) for path in PATHS}
CARDS = list(CONTENT)
OF_ONE_CLASS = {"task"}
"""Groups all of whose cards name one class: they differ in its knobs, and so from its defaults."""
PRESETS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
TINY = [name for name in PRESETS if name.endswith("_tiny")]
FULL = [name for name in PRESETS if not name.endswith("_tiny")]


@cache
def card(name: str):
    """A card with what it inherits."""
    group, _, option = name.partition("/")
    # A stage may choose an optimizer, too, so that it is composed within a run.
    return plain(compose(f"stage={option}") if group == "stage" else compose(config=name))[group]


def described(name: str) -> list[dict]:
    """The outermost cards of a file: one, or several under names of their own (of stages, of modalities)."""
    found = {}
    for path, node in cards(card(name)):
        if not any(outer == "" or path.startswith(f"{outer}.") for outer in found):
            found[path] = node
    return [*found.values()]


@pytest.mark.parametrize("name", CARDS)
def test_card(name):
    """It begins with what it is, fits its class, lists every knob; without a parent it repeats the defaults."""
    first = (conf_dir() / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# "), f"{name} begins with {first!r} instead of a comment"
    assert described(name), f"{name} names no class"
    for content in described(name):
        assert [*card_faults(content, name, WIRED.get(name.partition("/")[0]))] == []
        known = parameters(find_target(content)).values()
        knobs = {parameter.name for parameter in known if parameter.kind is Parameter.KEYWORD_ONLY}
        assert knobs - set(content) == set(), f"{name} leaves out knobs of its class"
    if is_card(CONTENT[name]) and "defaults" not in CONTENT[name] and name.partition("/")[0] not in OF_ONE_CLASS:
        for knob, parameter in parameters(find_target(CONTENT[name])).items():
            if knob in CONTENT[name] and parameter.default is not Parameter.empty:
                assert coerce(CONTENT[name][knob], parameter.annotation) == parameter.default, knob


@pytest.mark.parametrize("name", PRESETS)
def test_preset(name):
    """It chooses options of groups, sets nothing, and fits."""
    path = conf_dir() / "model" / f"{name}.yaml"
    package, about, *_ = path.read_text().splitlines()
    assert package == "# @package _global_"
    assert about.startswith("# ")
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["defaults"]
    for entry in content["defaults"]:
        [(key, option)] = entry.items()
        assert key.startswith("override /"), f"{key} does not choose an option of a group"
        assert isinstance(option, str), f"{key} chooses {option!r}"
    check(compose(f"model={name}"))


# Parameters of connector and of hook (or of what is trained beside), slots of an image: as published.
PUBLISHED = {
    "blip2_flant5_xl": (105_162_240 + 1_574_912, 0, 32),
    "blip2_flant5_xxl": (105_162_240 + 3_149_824, 0, 32),
    "blip2_opt_2b7": (105_162_240 + 1_968_640, 0, 32),
    "blip2_opt_6b7": (105_162_240 + 3_149_824, 0, 32),
    "cobra_3b": (47_789_568, 0, 729),
    "cogvlm_17b": (142_614_528 + 8_192, 6_476_005_376, 1227),
    "eve_7b": (20_979_712, 0, 601),
    "eve_7b_hd": (20_979_712, 0, 2353),
    "flamingo_llama_7b": (63_019_008, 8 * 139_476_994, 0),
    "flamingo_rwkv6_7b": (63_019_008, 8 * 139_476_994, 0),
    "fuyu_8b": (11_063_296 + 4_096, 0, 2340),  # and the vector that ends a row
    "infinitevl_4b": (36_708_608, 0, 16384),  # of the largest image
    "llava15_13b": (31_467_520, 0, 576),
    "llava15_7b": (20_979_712, 0, 576),
    "llava_13b": (5_248_000, 0, 256),
    "llava_7b": (4_198_400, 0, 256),
    "palm_e_12b": (1792 * 4096 + 4096, 0, 256),
    "palm_e_66b": (1792 * 8192 + 8192, 0, 256),
    "palm_e_84b": (6144 * 8192 + 8192, 0, 256),
    "palm_e_562b": (6144 * 18432 + 18432, 0, 256),
    "minigpt4_13b": (105_162_240 + 3_937_280, 0, 32),
    "minigpt4_7b": (105_162_240 + 3_149_824, 0, 32),
    "minigptv2_7b": (23_072_768, 0, 256),
    "qwen35_0b8": (12_588_544, 0, 16384),  # of the largest image
    "qwen35_2b": (25_174_016, 0, 16384),
    "qwen35_4b": (27_271_680, 0, 16384),
    "qwen35_9b": (40_119_040, 0, 16384),
    "modrwkv_0b4": (768 * 4096 + 4096 + 4096 * 1024 + 3 * 1024, 0, 576),
    "modrwkv_1b5": (768 * 8192 + 8192 + 8192 * 2048 + 3 * 2048, 0, 576),
    "modrwkv_2b9": (768 * 10240 + 10240 + 10240 * 2560 + 3 * 2560, 0, 576),
    "qwen_vl_7b": (91_791_360, 0, 256),
    "vila15_13b": (49_826_816, 0, 196),
    "vila15_40b": (143_170_560, 0, 256),
    "vila15_3b": (18_364_416, 0, 196),
    "vila15_8b": (35_668_992, 0, 196),
    "vila_13b": (31_467_520, 0, 576),
    "vila_7b": (20_979_712, 0, 576),
    "visualglm_6b": (105_162_240 + 3_149_824, 0, 32),
    "visualrwkv5_1b5": (1024 * 2048, 0, 577),
    "visualrwkv5_3b": (1024 * 2560, 0, 577),
    "visualrwkv5_7b": (1024 * 4096, 0, 577),
    "visualrwkv6_1b6": (1024 * 2048, 0, 577),
    "visualrwkv6_3b": (1024 * 2560, 0, 577),
    "visualrwkv6_7b": (1024 * 4096, 0, 577),
    "visualrwkv7_0b1": (3200**2 + 3200 * 768 + 2 * 768, 0, 1024),
    "visualrwkv7_0b4": (3200**2 + 3200 * 1024 + 2 * 1024, 0, 1024),
    "visualrwkv7_1b5": (3200**2 + 3200 * 2048 + 2 * 2048, 0, 1024),
    "visualrwkv71_0b1": (768**2 + 768 * 768 + 2 * 768, 0, 256),
    "visualrwkv71_0b4": (768**2 + 768 * 1024 + 2 * 1024, 0, 256),
    "visualrwkv71_1b5": (768**2 + 768 * 2048 + 2 * 2048, 0, 256),
    "visualrwkv72_0b1": (768**2 + 768 * 768 + 2 * 768, 0, 64 * 256),  # of the largest image
    "visualrwkv710_0b1": (0, 56_650_752, 256),
    "visualrwkv73_0b1": (23_738_880, 0, 256),
    "visualrwkv74_0b1": (23_738_880, 0, 64 * 256),
    "visualrwkv_uhd_1b6": (6400 * 2048 + 2048**2, 0, 1024),  # without the gate, which is not used
    "llava16_7b": (20_979_712 + 4096, 0, 576 + 48 * 49),  # of a square image
    "llava16_13b": (31_467_520 + 5120, 0, 576 + 48 * 49),
    "visualrwkv5_7b_hybrid": (1024 * 4096, 4 * 4096**2 + 2 * 4096, 577),
    "visualrwkv_hd_1b6": (3200 * 2048 + 2 * 2048**2, 0, 1024),
}
# The first stage of BLIP-2 is counted with its losses (tests/training/test_designs.py); the others are not published.
STUDY = {"study_rwkv5", "study_rwkv6", "study_rwkv7", "study_transformer"}
OURS = {"blip2_stage1", "smol", "transformer_small", "visualrwkv6_small", "visualrwkv7_small", *STUDY}
# Billions of the whole model, where its name or its paper says them.
TOTAL = {
    "cobra_3b": 3.5,
    "cogvlm_17b": 17.6,
    "fuyu_8b": 9.4,
    "qwen_vl_7b": 9.6,
    "visualglm_6b": 7.8,
    "palm_e_12b": 12.4,
    "palm_e_66b": 66.3,
    "palm_e_84b": 84.3,
    "palm_e_562b": 562.2,
    "vila15_40b": 40.1,
}


def test_every_full_size_preset_is_compared():
    assert set(PUBLISHED) | OURS == set(FULL)


def by_family(names: list[str]) -> list:
    """Names of which the first of each family runs by default: the others (`vila15_40b` beside `vila15_13b`) are
    slow.
    """
    families = [name.rpartition("_")[0] or name for name in names]
    slow = [family in families[:number] for number, family in enumerate(families)]
    return [pytest.param(name, marks=[pytest.mark.slow] * late) for name, late in zip(names, slow, strict=True)]


@pytest.mark.parametrize("name", by_family(FULL))
def test_a_full_size_preset_builds_without_memory(name):
    """It shows the published numbers of parameters, and keeps the published number of slots."""
    cfg = compose(f"model={name}")
    model = on_meta(plain(cfg))
    assert all(parameter.is_meta for parameter in model.parameters())
    modality = model.modalities["image"]
    layout = modality.layout(*modality.image.size)
    assert layout.tokens + layout.cross_attention > 0
    if name in PUBLISHED:
        connector, hook, slots = PUBLISHED[name]
        assert layout.tokens == slots
        parts = [(modality.connector, connector), *([(model.hook, hook)] if hook else [])]
        assert [count(part.parameters()).partition(" ")[2] for part, _ in parts] == [
            f"({n:,})" * (n > 0) for _, n in parts
        ]
    if name in TOTAL:
        total = sum(parameter.numel() for parameter in model.parameters()) / 1e9
        assert total == pytest.approx(TOTAL[name], rel=0.01)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_preset_is_shown(name):
    console = Console(file=StringIO(), width=200, highlight=False)
    console.print(describe(on_meta(plain(compose(f"model={name}"))), {}))
    text = console.file.getvalue()
    assert "parameters" in text
    assert "state: " in text


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_preset_learns_and_replies(name):
    torch.manual_seed(0)
    model = build(compose(f"model={name}"))
    batch = two_rows_with_images(model)
    output = model(batch)
    logits = model.head(output.hidden)
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), batch.sequence.labels[:, 1:].flatten())
    loss.backward()
    assert loss.isfinite()
    for part, module in {"connector": model.modalities["image"].connector, "backbone": model.backbone}.items():
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        assert gradients or not [*module.parameters()], f"no gradient reaches the {part}"
        assert all(gradient.isfinite().all() for gradient in gradients), part
    replies = generate(model, batch, max_new_tokens=2)
    assert [len(reply) for reply in replies] == [2, 2]


def two_rows_with_images(model) -> Batch:
    """Two samples, each a few tokens, an image and a few more tokens."""
    modality = model.modalities["image"]
    height, width = modality.image.size
    layout = modality.layout(height, width)
    text = torch.randint(1, min(model.backbone.vocab, 200), (2, 7))
    slots = torch.full((2, layout.tokens), SLOT)
    ids = torch.cat([text[:, :3], slots, text[:, 3:]], dim=1)
    labels = torch.where(ids == SLOT, -100, ids)
    blocks = tuple(ImageSpan(row, 3, layout) for row in range(2))
    return Batch(Sequence(ids, blocks, labels=labels), {"image": torch.randn(2, 3, height, width)})


GLOBAL_STAGES = [name for name in CARDS if name.startswith("stage/") and "stage" in CONTENT[name]]


@pytest.mark.parametrize("name", GLOBAL_STAGES)
def test_what_a_stage_sets_holds(name):
    """A stage may set knobs of the groups before it, but none of the run itself, which would overrule it."""
    found = plain(compose(name.replace("/", "=")))
    for key, knobs in CONTENT[name].items():
        if key not in ("defaults", "stage"):
            assert {knob: found[key][knob] for knob in knobs} == knobs, key
