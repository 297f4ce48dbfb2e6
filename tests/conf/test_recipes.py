"""Every recipe runs on a tiny model, from files to files: its loss falls; what it does not train keeps its bits."""

import json

import pytest
import torch
import yaml
from PIL import Image

import mmrnn
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.tree import plain
from mmrnn.config.validate import check
from mmrnn.data import Collator
from mmrnn.model.parameter_names import matches
from mmrnn.training.build import build_parts
from mmrnn.training.run import run
from mmrnn.training.saving.run_clock import RunClock
from mmrnn.training.step import forward_for

RECIPES = sorted(
    path.stem
    for path in (conf_dir() / "recipe").glob("*.yaml")
    if "\nstages:\n" not in path.read_text(encoding="utf-8")
)
"""Those of one stage; `tests/cli/test_recipe_stages.py` has the others."""

# Which tiny model a recipe is tried on, and what has to be tiny besides.
TINY = {
    "linearise_": ("visualrwkv7_tiny", "encoder=patch_tiny", "connector=linear"),
    "llava_": ("llava_tiny",),
    "llava15_": ("llava15_tiny", "adapter.rank=4"),
    "llava16_": ("llava16_tiny",),
    "blip2_stage1": ("blip2_tiny", "objective=blip2_tiny"),
    "blip2_stage2_t5": ("blip2_t5_tiny",),
    "blip2_stage2": ("blip2_tiny",),
    "blip2_caption": ("blip2_tiny", "encoder.size=28"),
    "minigpt4_": ("minigpt4_tiny",),
    "minigptv2_": ("minigptv2_tiny", "adapter=lora_tiny"),
    "visualglm_": ("visualglm_tiny", "adapter=lora_tiny", "prompt=glm_tiny"),
    "cobra": ("cobra_tiny",),
    "cogvlm_": ("cogvlm_tiny", "encoder=eva02_tiny"),
    "qwen35_": ("qwen35_tiny",),
    "infinitevl_": ("infinitevl_tiny",),
    "qwen_vl_": ("qwen_vl_tiny", "encoder=bigg_tiny"),
    "modrwkv": ("modrwkv_tiny",),
    "palm_e": ("palm_e_tiny",),
    "eve_": ("eve_tiny", "objective=eve_tiny"),
    "vila_": ("vila_tiny",),
    "vila15_": ("vila15_tiny",),
    "flamingo": ("flamingo_tiny",),
    "visualrwkv5_hybrid": ("visualrwkv5_hybrid_tiny",),
    "visualrwkv5_": ("visualrwkv5_tiny",),
    "visualrwkv6_": ("visualrwkv6_tiny",),
    "visualrwkv71_contrast": (
        "visualrwkv71_tiny",
        *("prompt.image_mark=1024", "prompt.text_mark=1025", "backbone.vocab=1026"),
    ),
    "visualrwkv710_": ("visualrwkv710_tiny",),
    "visualrwkv73_": ("visualrwkv73_tiny",),
    "visualrwkv72_": ("visualrwkv72_tiny",),
    "visualrwkv71_": ("visualrwkv71_tiny",),
    "visualrwkv7_": ("visualrwkv7_tiny",),
    "visualrwkv_uhd_": ("visualrwkv_uhd_tiny",),
    "visualrwkv_hd_": ("visualrwkv_hd_tiny",),
}


COLOURS = {"red": "a red wall", "blue": "a blue sky", "green": "green grass", "white": "white snow"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Four images, twice as wide as high, with what is on them, and text alone: in LLaVA's form, and as pages."""
    folder = tmp_path_factory.mktemp("records")
    listed = [{"id": "text", "conversations": talk("which colour is snow?", "white")}]
    for number, (colour, text) in enumerate(COLOURS.items()):
        Image.new("RGB", (24, 12), colour).save(folder / f"{colour}.png")
        shown = {"image": f"{colour}.png", "class_id": number}
        listed.append({"id": colour, "conversations": talk("<image>\nwhat is it?", text), **shown})
    (folder / "data.json").write_text(json.dumps(listed))
    pages = [
        {"texts": ["look:", None, text], "images": [None, f"{colour}.png", None]} for colour, text in COLOURS.items()
    ]
    (folder / "pages.json").write_text(json.dumps([*pages, {"texts": ["white snow"], "images": [None]}]))
    return folder / "data.json"


def talk(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def composed(name, records):
    """The recipe on its tiny model, its data read from one file, its one stage of a few steps at a high rate."""
    model, *more = next(given for start, given in TINY.items() if name.startswith(start))
    chosen = yaml.safe_load((conf_dir() / "recipe" / f"{name}.yaml").read_text())["defaults"]
    groups = {key.removeprefix("override /"): card for entry in chosen for key, card in entry.items()}
    if "adapter" not in groups:
        more = [one for one in more if one != "adapter.rank=4"]
    if groups["objective"] != "eve":
        more = [one for one in more if one != "objective=eve_tiny"]
    if name.startswith("linearise_"):
        more.append(f"teacher={teacher(records.with_name('teacher'), *more)}")
    cfg = plain(compose(f"model={model}", f"recipe={name}", "evaluate.samples=0", "log_every=1", "out=null", *more))
    for part in cfg["data"].get("parts", {"": cfg["data"]}).values():
        pages = part["_target_"].endswith("InterleavedDocuments")
        part["file"] = str(records.with_name("pages.json") if pages else records)
    [stage] = cfg["stage"].values()
    # The published rates belong to large models and long runs.
    stage |= {
        "steps": 14,
        "batch_size": 5,
        "lr": 5e-3,
        "lr_mult": dict.fromkeys(stage["lr_mult"], 1),
    }
    cfg["schedule"] |= {"min_lr": 5e-3, "warmup": 0}
    return cfg | {"choices": {}}


def teacher(folder, *parts):
    """Folder of a transformer with untrained weights and these parts."""
    if not folder.exists():
        mmrnn.save(mmrnn.build(compose("model=visualrwkv7_tiny", *parts, "backbone=transformer_tiny")), folder)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_and_where_it_comes_from(name):
    package, about, source, data, *_ = (conf_dir() / "recipe" / f"{name}.yaml").read_text().splitlines()
    assert package == "# @package _global_"
    assert about.startswith("# ")
    assert source.startswith("# Source: ")
    assert data.startswith("# Data: ")
    defaults = yaml.safe_load((conf_dir() / "recipe" / f"{name}.yaml").read_text())["defaults"]
    chosen = {key.removeprefix("override /") for entry in defaults for key in entry}
    assert {"prompt", "data", "objective", "optimizer", "schedule", "stage"} <= chosen


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name, records, tmp_path):
    cfg = composed(name, records)
    check(cfg)
    parts = build_parts(cfg)
    [stage] = parts.stages.values()
    if parts.model.hook is not None and hasattr(parts.model.hook, "blocks"):
        for block in parts.model.hook.blocks.values():  # a gate at zero lets no gradient pass in so few steps
            torch.nn.init.ones_(block.gate)
    for value in parts.model.backbone.parameters():  # a fresh RNN ignores what was before: its output matrices are zero
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.1)
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    collate = Collator(parts.tokenizer, parts.prompt, dict(parts.model.modalities), max_length=cfg["max_length"])
    batch = collate([parts.data[index] for index in range(5)])
    loss = loss_of(parts, batch)
    run(parts, cfg, tmp_path, RunClock(tmp_path))
    assert loss_of(parts, batch) < loss - 1e-3
    after = parts.model.state_dict()
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert all(stage.trains(name) for name in moved), sorted(moved)
    for pattern in stage.train:
        assert any(matches(name, (pattern,)) for name in moved), pattern
    assert (tmp_path / "model.safetensors").is_file()


@torch.no_grad()
def loss_of(parts, batch):
    torch.manual_seed(0)  # negatives are drawn
    parts.model.eval()
    return parts.objective(parts.model, forward_for(parts.model, parts.objective, batch)).item()
