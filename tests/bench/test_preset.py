"""`mmrnn bench model=PRESET`: random weights of the right sizes, rows of every prompt, and refusals."""

import json

import pytest
import torch

from mmrnn.bench import preset
from mmrnn.bench.preset import fill, prompt
from mmrnn.bench.timing import BenchConfig, Unavailable
from mmrnn.cli.main import main
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.io import process_memory
from mmrnn.model.build import build
from mmrnn.model.start import build_on_meta

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))


def filled(*overrides):
    model, _ = build_on_meta({**plain(compose(*overrides)), "weights": {}})
    fill(model, torch.float32, torch.device("cpu"))
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", TINY)
def test_every_preset_runs(name):
    model = filled(f"model={name}")
    if not model.backbone.generates:
        with pytest.raises(ConfigError, match="generates no text; choose a preset that does"):
            preset.check_memory(model, BenchConfig())
        return
    batch = prompt(model, 400)
    assert batch.sequence.ids.shape == (1, 400)
    made = model(batch)
    logits = model.head(made.hidden[:, -1])
    assert logits.isfinite().all()
    hidden, _ = model.run_backbone(preset.Decoding(model, made.state).token, made.state)
    assert hidden.isfinite().all()


def test_weights_are_those_of_a_build():
    """Names, sizes and ties; buffers have their values."""
    for name in ("visualrwkv6_tiny", "blip2_tiny"):
        ours, theirs = filled(f"model={name}"), build({**plain(compose(f"model={name}")), "weights": {}})
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }
        assert len([*ours.parameters()]) == len([*theirs.parameters()])
        for (key, value), (_, other) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            assert torch.equal(value, other), key


def test_rows_of_every_prompt(tmp_path, capsys):
    words = ("model=visualrwkv6_tiny", "--prompt=64", "--prompt=128", "--prompt=5", "--precision=bf16")
    assert main(["bench", *words, f"--out={tmp_path}"]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["context"], row["name"]) for row in result["rows"]] == [
        (64, "first token"), (64, "a token"), (128, "first token"), (128, "a token")
    ]  # fmt: skip
    assert {row["part"] for row in result["rows"]} == {"preset"}
    assert len({row["megabytes"] for row in result["rows"]}) == 1
    assert result["skipped"] == ["model=visualrwkv6_tiny, a prompt of 5: its image alone takes 17 positions"]
    assert "tokens/s" in capsys.readouterr().out


def test_where_the_peak_is_not_known_there_is_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(process_memory, "RESET", tmp_path / "none")
    assert main(["bench", "model=visualrwkv6_tiny", "--quick", f"--out={tmp_path}"]) == 0
    first, _ = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert first["process_megabytes"] is None
    assert first["megabytes"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=blip2_stage1"], "backbone: NoBackbone generates no text; choose a preset that does"),
        (["model=visualrwkv6_tinny"], "did you mean 'visualrwkv6_tiny'?"),
    ],
)
def test_what_cannot_be_measured(words, message, capsys, tmp_path):
    assert main(["bench", *words, f"--out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_memory_does_not_hold_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(preset, "free_memory", lambda device: 500_000)
    assert main(["bench", "model=visualrwkv6_tiny", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "in fp32, and 0.0 GB are free; choose --precision bf16, a smaller preset or a machine with more" in error


def test_available_memory(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    monkeypatch.setattr(process_memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(process_memory, "CONTAINER", tmp_path)
    assert process_memory.available_bytes() == 50 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, found in (("max", 50 * 1024), ("21000", 20000), ("900000", 50 * 1024)):
        (tmp_path / "memory.max").write_text(limit)
        assert process_memory.available_bytes() == found
    monkeypatch.setattr(process_memory, "MACHINE", tmp_path / "nothing")
    assert process_memory.available_bytes() is None


def test_a_prompt_that_is_too_short_is_named():
    with pytest.raises(Unavailable, match="its image alone takes"):
        prompt(filled("model=llava15_tiny"), 4)
