"""A small VisualRWKV-6 learns to see, within minutes."""

import json

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.training.run import train


@pytest.mark.slow
def test_the_default_model_learns_what_cannot_be_guessed(tmp_path):
    cfg = compose(
        "data.scenes=1200",
        "data.kinds=[count,category]",
        "data.turns=2",
        "stage.instruct.steps=480",
        "evaluate.samples=200",
        "evaluate.every=0",
    )
    train(plain(cfg), tmp_path)
    accuracy = json.loads((tmp_path / "result.json").read_text())["accuracy"]
    for split, kind, least in (("scenes", "count", 0.7), ("scenes", "category", 0.4), ("drawings", "count", 0.65)):
        row = accuracy[split][kind]
        assert row["accuracy"] > max(least, row["majority"] + 0.1, row["blind"] + 0.1), (split, kind, row)
