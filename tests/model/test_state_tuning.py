"""State tuning trains start states alone, which are read and written as RWKV-PEFT does."""

import pytest
import torch

import mmrnn
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.model.start import build_on_meta
from mmrnn.training import LanguageModel
from mmrnn.training.distributed.materialize import materialize
from mmrnn.training.run import train
from mmrnn.training.step import TrainStep

TINY = ("model=visualrwkv7_tiny", "encoder=patch_tiny", "connector=linear", "adapter=state")


def states_of(model):
    heads, size = model.backbone.start.shape[1:3]
    return {f"blocks.{layer}.att.time_state": torch.randn(heads, size, size) for layer in range(model.backbone.depth)}


def test_a_run_changes_start_states_alone_and_they_travel_as_a_file(tmp_path, capsys):
    torch.manual_seed(0)
    base = build(compose(*TINY[:-1]))
    for value in base.backbone.parameters():  # a fresh RNN ignores its state: its output matrices are zero
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.1)
    mmrnn.save(base, tmp_path / "base")
    small = ("stage=state", "stage.instruct.steps=3", "stage.instruct.batch_size=4", "evaluate.samples=0", "workers=0")
    data = ("data.scenes=6", "data.rounds=2", "save_frozen=false", f"weights.model={tmp_path / 'base'}")
    train(plain(compose(*TINY, *small, *data)), tmp_path / "run")
    tuned = mmrnn.load(tmp_path / "run").model
    tensors = base.state_dict()
    assert tuned.backbone.start.abs().amax((1, 2, 3)).gt(0).all()
    assert all(torch.equal(value, tensors[name]) for name, value in tuned.state_dict().items() if name in tensors)
    assert [*read(tmp_path / "run")] == ["backbone.start"]

    file = tmp_path / "state.pth"
    assert main(["convert", str(tmp_path / "run"), str(file), "--part", "state", "--format", "rwkv7"]) == 0
    written = torch.load(file, weights_only=True)
    assert [*written] == [f"blocks.{layer}.att.time_state" for layer in range(tuned.backbone.depth)]
    assert torch.equal(written["blocks.1.att.time_state"].mT, tuned.backbone.start[1])
    again = build(compose(*TINY, f"adapter.file={file}"))
    assert torch.equal(again.backbone.start, tuned.backbone.start)
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "base"), str(file), "--part", "state", "--format", "rwkv7"]) == 2
    assert "holds no start states; train them with adapter=state" in capsys.readouterr().err


def test_a_model_built_without_memory_begins_at_the_file(tmp_path):
    states = states_of(build(compose(*TINY)))
    torch.save(states, tmp_path / "state.pth")
    cfg = compose(*TINY, f"adapter.file={tmp_path / 'state.pth'}")
    torch.manual_seed(3)
    whole = build(cfg).state_dict()
    torch.manual_seed(3)
    model, start = build_on_meta(cfg)
    materialize(TrainStep(model, LanguageModel()), start, "cpu")
    assert torch.equal(model.backbone.start[0], states["blocks.0.att.time_state"].mT)
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


def test_a_quantised_copy_keeps_them(tmp_path, capsys):
    model = build(compose(*TINY))
    torch.nn.init.normal_(model.backbone.start)
    mmrnn.save(model, tmp_path / "tuned")
    assert main(["convert", str(tmp_path / "tuned"), str(tmp_path / "small"), "quantize=int8"]) == 0
    assert torch.equal(mmrnn.load(tmp_path / "small").model.backbone.start, model.backbone.start)
    capsys.readouterr()


def test_what_has_no_start_states_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="adapter: Transformer has no WKV matrices to start from"):
        build(compose(*TINY, "backbone=transformer_tiny"))
    torch.save({"emb.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"adapter: file: .* holds more than start states"):
        build(compose(*TINY, f"adapter.file={tmp_path / 'other.pth'}"))
