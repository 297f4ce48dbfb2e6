"""Every recipe runs on a tiny model: its loss falls, and what it does not train stays as it was, bit by bit."""

from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image

from mmrnn.config import build, check, compose, conf_dir, make
from mmrnn.data import Collator, Sample, Turn
from mmrnn.training.loop import run_stage
from mmrnn.training.run import make_objective

RECIPES = sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))

# Which tiny model a recipe is tried on, and what has to be tiny besides.
TINY = {
    "llava_": ("llava_tiny",),
    "llava15_": ("llava15_tiny", "adapter.rank=4"),
    "blip2_stage1": ("blip2_tiny", "objective=blip2_tiny"),
    "blip2_stage2_t5": ("blip2_t5_tiny",),
    "blip2_stage2": ("blip2_tiny",),
    "minigpt4_": ("minigpt4_tiny",),
    "minigptv2_": ("minigptv2_tiny", "adapter=lora_tiny"),
    "visualglm_": ("visualglm_tiny", "adapter=lora_tiny", "prompt=glm_tiny"),
    "cogvlm_": ("cogvlm_tiny", "encoder=eva02_tiny"),
    "qwen_vl_": ("qwen_vl_tiny", "encoder=bigg_tiny"),
    "palm_e": ("palm_e_tiny",),
    "eve_": ("eve_tiny", "objective=eve_tiny"),
    "vila_": ("vila_tiny",),
    "vila15_": ("vila15_tiny",),
    "flamingo": ("flamingo_tiny",),
    "visualrwkv6_": ("visualrwkv6_tiny",),
}


class Paint:
    """A picture of one colour, twice as wide as high."""

    def __init__(self, key):
        self.key = key

    def open(self):
        return Image.new("RGB", (24, 12), self.key)


def samples():
    told = [("red", "a red wall"), ("blue", "a blue sky"), ("green", "green grass"), ("white", "white snow")]
    return [
        Sample((Turn("user", "<image>\nwhat is it?"), Turn("assistant", text)), (Paint(colour),), id=colour)
        for colour, text in told
    ]


def composed(name):
    model, *more = next(given for start, given in TINY.items() if name.startswith(start))
    chosen = yaml.safe_load((conf_dir() / "recipe" / f"{name}.yaml").read_text())
    if "adapter.rank=4" in more and not any("override /adapter" in entry for entry in chosen["defaults"]):
        more.remove("adapter.rank=4")
    if "objective=eve_tiny" in more and not any(
        entry.get("override /objective") == "eve" for entry in chosen["defaults"]
    ):
        more.remove("objective=eve_tiny")
    return compose(f"model={model}", f"recipe={name}", *more)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_and_where_it_comes_from(name):
    package, about, source, *_ = (conf_dir() / "recipe" / f"{name}.yaml").read_text().splitlines()
    assert package == "# @package _global_"
    assert about.startswith("# ")
    assert source.startswith("# Source: ")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name):
    torch.manual_seed(0)
    cfg = composed(name)
    check(cfg)
    model = build(cfg)
    objective = make_objective(cfg.objective, model)
    [stage] = make(cfg.stage).values()
    # The published rates belong to large models and long runs.
    stage = replace(stage, steps=14, batch=4, lr=5e-3, lr_final=5e-3, warmup=0, rates=dict.fromkeys(stage.rates, 1.0))
    if model.hook is not None and hasattr(model.hook, "blocks"):
        for block in model.hook.blocks.values():  # a gate at zero lets no gradient pass in so few steps
            torch.nn.init.ones_(block.gate)
    for value in model.backbone.parameters():  # a fresh RNN ignores what was before: its output matrices are zero
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.1)
    learning = stage.freeze_rest(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = Collator(make(cfg.tokenizer), make(cfg.prompt), dict(model.senses), length=cfg.length)(samples())
    losses = []
    optimizer = stage.optimizer(model)
    record = lambda step, loss, rate: losses.append(loss)  # noqa: ARG005, E731
    run_stage(model, stage, optimizer, objective, iter([[batch]] * 14), after_step=record)
    assert min(losses[-3:]) < losses[0] - 1e-3, losses
    after = model.state_dict()
    names = {name for name, _ in model.named_parameters()}
    moved = {name for name in names if not torch.equal(after[name], before[name])}
    assert moved <= set(learning)
    assert len(moved) >= 1
