"""Recipes of several stages: one command, a run for each stage, from the model of the one before."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmrnn.cli.main import main
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.recipe_stages import route_overrides, stage_runs

DESIGNS = sorted(
    path.stem for path in (conf_dir() / "recipe").glob("*.yaml") if "\nstages:\n" in path.read_text(encoding="utf-8")
)
SMALL = ("evaluate.samples=0", "log_every=1", "stage.align.steps=2", "stage.instruct.steps=3", "max_length=200")


@pytest.fixture
def records(tmp_path):
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "this"}]
    lines = [json.dumps({"id": str(n), "image": "a.png", "conversations": turns}) for n in range(4)]
    (tmp_path / "all.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path / "all.jsonl"


def train(*arguments, recipe="visualrwkv6"):
    sizes = ("stage.align.batch_size=2", "stage.instruct.batch_size=2")
    return main(["train", "model=visualrwkv6_tiny", f"recipe={recipe}", *SMALL, *sizes, *map(str, arguments)])


def test_one_command_trains_both_stages(records, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(f"data.file={records}", f"out={out}", "stages.align.seed=7", "weights.connector=null") == 0
    align, instruct = (compose_of(out / name) for name in ("align", "instruct"))
    assert (align["seed"], instruct["seed"]) == (7, 0)
    assert align["stage"]["align"]["steps"] == 2
    assert instruct["stage"]["instruct"]["steps"] == 3
    assert instruct["weights"]["model"] == str(out / "align")
    first, second = (load_file(str(out / name / "model.safetensors")) for name in ("align", "instruct"))
    frozen = [name for name in first if name.startswith(("backbone.embedding", "modalities.image.encoder"))]
    assert all(torch.equal(first[name], second[name]) for name in frozen)
    # What is done is left as it is.
    before = (out / "align" / "log.jsonl").stat().st_mtime_ns
    assert train(f"data.file={records}", f"out={out}", "stages.align.seed=7", "weights.connector=null") == 0
    assert (out / "align" / "log.jsonl").stat().st_mtime_ns == before
    capsys.readouterr()


def compose_of(folder):
    from mmrnn.checkpoints.config_file import read_config

    return read_config(folder)


def test_a_stage_can_be_left_out(records, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(f"data.file={records}", f"out={out}", "stage.align.skip=true") == 0
    assert not (out / "align").exists()
    assert compose_of(out / "instruct")["weights"]["model"] is None
    capsys.readouterr()


def test_a_fault_in_a_later_stage_is_told_before_the_first(records, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(f"data.file={records}", f"out={out}", "stage.instruct.batch_size=0") == 2
    assert not out.exists()
    error = capsys.readouterr().err
    assert "stage.instruct.batch_size" in error
    assert "(in the stage instruct)" in error


def test_all_stages_left_out(tmp_path):
    stages = {"align": {"recipe": "visualrwkv6_align", "skip": True}}
    with pytest.raises(ConfigError, match="all stages are skipped"):
        list(stage_runs(stages, [], tmp_path))


def test_overrides_of_a_single_recipe_stay_as_they_are():
    given = ["recipe=visualrwkv6_align", "stage.align.steps=3", "seed=1"]
    assert route_overrides(given) == given


@pytest.mark.parametrize("design", DESIGNS)
def test_every_stage_of_a_design_composes(design, tmp_path):
    stages = compose(f"recipe={design}").stages
    runs = list(stage_runs(stages, [f"recipe={design}", "seed=3"], tmp_path))
    assert [run.name for run in runs] == list(stages)
    for before, run in zip([None, *runs], runs, strict=False):
        cfg = compose(*run.overrides)
        assert cfg.seed == 3
        assert len(cfg.stage) == 1
        assert cfg.weights.model == (None if before is None else str(tmp_path / before.name))


def test_values_with_commas_and_braces(tmp_path):
    text = "a, [b] and {c}"
    [run] = stage_runs({"align": {"recipe": "visualrwkv6_align", "out": text}}, [], tmp_path)
    assert compose(*run.overrides).out == text
