"""docs/training.md: every command runs, on a tiny model and a few records; its settings are those of the cards."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmrnn.config.compose import compose, conf_dir

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
ROOT = Path(__file__).parents[2]

TINY = {
    "model=visualrwkv6_1b6": "model=visualrwkv6_tiny",
    "model=visualrwkv6_7b": "model=visualrwkv6_tiny",
    "workers=4": "workers=1",
    "workers=8": "workers=1",
    "--nproc-per-node=8": "--nproc-per-node=2",
}
SMALL = ("evaluate.samples=0", "log_every=1", "precision=fp32", "tracker=none", "max_length=200")


def commands() -> list[list[str]]:
    """Lines of all blocks that start the program, those of the batch script without `srun`."""
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    words = [shlex.split(line.partition("  #")[0]) for line in lines]
    words = [one[2:] if one[:1] == ["srun"] else one for one in words]
    return [one for one in words if one and one[0] in ("mmrnn", "torchrun")]


def small(words: list[str]) -> list[str]:
    """A command on a tiny model, for two steps of each stage."""
    made = [TINY.get(word, word) for word in words]
    if "train" not in words:
        return made
    recipe = next((word.removeprefix("recipe=") for word in words if word.startswith("recipe=")), None)
    if recipe is None:
        stages = ["instruct"]
    else:
        cfg = compose(f"recipe={recipe}")
        stages = [*cfg.stages] or [*cfg.stage]
    sizes = [f"stage.{name}.{knob}" for name in stages for knob in ("steps=2", "batch_size=4", "grad_accum_steps=1")]
    given = {word.partition("=")[0] for word in sizes}
    return [word for word in made if word.partition("=")[0] not in given] + [*SMALL, *sizes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records under the names of the page, and an image."""
    made = tmp_path_factory.mktemp("page")
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(made / "photo.jpg")
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "this"}]
    records = [{"id": str(n), "image": "photo.jpg", "conversations": turns} for n in range(8)]
    for name in ("captions.json", "dialogues.json", "all.json"):
        (made / name).write_text(json.dumps(records))
    return made


@pytest.mark.slow
def test_every_command_runs(folder):
    """One after the other, as a reader types them: the last ones use what the first have made."""
    assert len(commands()) >= 6
    for words in commands():
        program, *rest = small(words)
        start = ["-m", "torch.distributed.run"] if program == "torchrun" else ["-m", "mmrnn"]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *start, *rest], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-3000:]}"


def test_settings_that_are_named_exist():
    """Words of the form `name` or `name=value` in tables and text that stand in `conf/train.yaml`."""
    settings = set(compose("model=visualrwkv6_tiny"))
    for name in ("strategy", "batching", "tracker", "precision", "resume", "keep_last", "keep_every", "on_spike"):
        assert name in settings
        assert re.search(rf"`{name}\b", PAGE), name


@pytest.mark.parametrize("group", ["strategy", "batching", "tracker"])
def test_every_card_is_named(group):
    for path in (conf_dir() / group).glob("*.yaml"):
        assert re.search(rf"`(?:{group}=)?{path.stem}`", PAGE), path.stem
