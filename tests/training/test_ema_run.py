"""A run with a moving average of what learns: saved, evaluated, and resumed."""

import pytest
import torch
from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.training.ema import EMA
from mmrnn.training.evaluator import Evaluator
from mmrnn.training.run import train
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.checkpointing import Checkpoints

SMALL = (
    "model=visualrwkv6_tiny",
    "encoder=patch_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.steps=3",
    "stage.instruct.batch_size=4",
    "stage.instruct.freeze=[backbone.embedding.*]",
    "evaluate.samples=0",
    "log_every=1",
    "save_every_seconds=0",
    "max_save_share=1",
    "precision=fp32",
)


def config(*overrides):
    return plain(compose(*SMALL, *overrides))


def weights_of(folder):
    return load_file(str(folder / "model.safetensors"))


def test_the_average_is_what_is_saved(tmp_path, monkeypatch):
    """In checkpoints for good, and at the end."""
    learnt, update, initialise = [], EMA.update, EMA.__init__

    def weights(ema, model):
        return {name: value.double().clone() for name, value in model.state_dict().items() if name in ema.average}

    def remember(self, model, *rest):
        initialise(self, model, *rest)
        learnt.append(weights(self, model))

    def remember_and_update(self, model):
        learnt.append(weights(self, model))
        update(self, model)

    monkeypatch.setattr(EMA, "__init__", remember)
    monkeypatch.setattr(EMA, "update", remember_and_update)
    train(config("ema=0.15", "keep_every=2"), tmp_path / "run")
    averages, *steps = learnt
    assert len(steps) == 3
    assert "backbone.output.weight" in averages
    assert "backbone.embedding.weight" not in averages
    saved = {2: weights_of(folders.step_folder(tmp_path / "run", 2)), 3: weights_of(tmp_path / "run")}
    # The first update keeps a tenth of what the weights were at the start; the next would keep 2/11.
    for step, (kept, now) in enumerate(zip((0.1, 0.15, 0.15), steps, strict=True), 1):
        averages = {name: kept * value + (1 - kept) * now[name] for name, value in averages.items()}
        for name, value in averages.items() if step in saved else ():
            torch.testing.assert_close(saved[step][name].double(), value, atol=1e-6, rtol=1e-5)
        head = "backbone.output.weight"
        assert step not in saved or (saved[step][head] - now[head]).abs().max() > 1e-5


def test_a_resumed_run_goes_on_with_its_average(tmp_path, monkeypatch):
    cfg = config("ema=0.9")
    train(cfg, tmp_path / "whole")
    save = Checkpoints.save

    def stop(self, step, *rest, **more):
        if step == 2:
            raise KeyError("stands for a kill")
        save(self, step, *rest, **more)

    monkeypatch.setattr(Checkpoints, "due", lambda *_: True)
    monkeypatch.setattr(Checkpoints, "save", stop)
    with pytest.raises(KeyError, match="kill"):
        train(cfg, tmp_path / "parts")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="differs in ema"):
        train(config(), tmp_path / "parts")
    train(cfg, tmp_path / "parts")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_the_average_is_what_is_evaluated(tmp_path, monkeypatch):
    seen, look = [], Evaluator._held_out

    def held_out(self, model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return look(self, model)

    more = ("evaluate.samples=3", "evaluate.every=2", "evaluate.max_new_tokens=1", "ema=0.9", "keep_every=2")
    monkeypatch.setattr(Evaluator, "_held_out", held_out)
    train(config(*more), tmp_path / "run")
    saved = (weights_of(folders.step_folder(tmp_path / "run", 2)), weights_of(tmp_path / "run"))
    for weights, expected in zip(seen, saved, strict=True):
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
