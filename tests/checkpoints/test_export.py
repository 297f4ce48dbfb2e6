"""Parts of a run under the names of another project: adapters merged, tensors of a base included."""

import pytest
import torch

from mmrnn.checkpoints.convert import to_file
from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.types import Sequence
from mmrnn.weights import load
from mmrnn.weights.export import export

LORA = ("adapter=lora", "adapter.rank=3", "adapter.targets=[value,receptance]")
IDS = torch.tensor([[1, 2, 3, 4, 5]])


@pytest.fixture
def base(tmp_path):
    """A published backbone of random tensors."""
    torch.manual_seed(0)
    backbone = build(compose("model=visualrwkv6_tiny")).backbone
    tensors = {name: torch.randn_like(value) * 0.3 for name, value in export(backbone, "rwkv6").items()}
    torch.save(tensors, tmp_path / "base.pth")
    return tmp_path / "base.pth"


@pytest.fixture
def run(tmp_path, base):
    """A run with a LoRA that was trained, and its model; `only` the LoRA is in the folder, or everything."""

    def make(only):
        pytest.importorskip("peft")
        model = build(compose("model=visualrwkv6_tiny", *LORA, f"weights.backbone={base}"))
        for name, value in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(value)
        save(model, tmp_path / "run", only=only)
        return model.eval()

    return make


@torch.no_grad()
@pytest.mark.parametrize("only", [None, ["*lora_*", "connector", "encoder"]])
def test_a_lora_is_merged_on_export(run, base, only, tmp_path):
    model = run(only)
    assert (
        main(["convert", *map(str, (tmp_path / "run", tmp_path / "b.pth")), "--part", "backbone", "--format", "rwkv6"])
        == 0
    )
    found, before = read(tmp_path / "b.pth"), read(base)
    assert found.keys() == before.keys()
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert changed == {name for name in found if name.endswith((".value.weight", ".receptance.weight"))}
    twin = build(compose("model=visualrwkv6_tiny")).backbone.eval()
    load(twin, found)
    expected, _ = model.backbone(Sequence(IDS))
    torch.testing.assert_close(twin(Sequence(IDS))[0], expected, atol=1e-4, rtol=1e-4)


def test_merged_weights_have_the_names_of_before(run):
    from mmrnn.config.instantiate import instantiate

    model = run(None)
    instantiate(model.config["adapter"]).merge(model)
    assert list(model.state_dict()) == list(build(compose("model=visualrwkv6_tiny")).state_dict())


def test_a_run_without_its_base(tmp_path, base):
    """A run with `save_frozen=false` has no backbone of its own to export."""
    model = build(compose("model=visualrwkv6_tiny", f"weights.backbone={base}"))
    save(model, tmp_path / "run", only=["connector", "encoder"])
    to_file(tmp_path / "run", tmp_path / "b.pth", "rwkv6", "backbone")
    before = read(base)
    assert all(torch.equal(value, before[name]) for name, value in read(tmp_path / "b.pth").items())


def test_a_trusted_package(tmp_path, monkeypatch, capsys):
    """The class of somebody's backbone is imported only where the command names its package."""
    (tmp_path / "their_backbone.py").write_text("from mmrnn.backbones import RWKV6\nclass Mine(RWKV6): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = build(compose("model=visualrwkv6_tiny", "trusted=[their_backbone]"))
    card = {**model.config["backbone"], "_target_": "their_backbone.Mine"}
    save(model, tmp_path / "run", config={**model.config, "backbone": card})
    command = ["convert", str(tmp_path / "run"), str(tmp_path / "b.pth"), "--part", "backbone", "--format", "rwkv6"]
    assert main(command) == 2
    assert "to trust it, set trusted=[their_backbone]" in capsys.readouterr().err
    assert main([*command, "trusted=[their_backbone]"]) == 0
    assert read(tmp_path / "b.pth").keys() == export(model.backbone, "rwkv6").keys()
    assert main([*command, "backbone=rwkv6"]) == 2
    assert "backbone=rwkv6: a file of tensors has no configuration" in capsys.readouterr().err


def test_what_names_no_part_is_told_which_there_are(tmp_path):
    save(build(compose("model=visualrwkv6_tiny")), tmp_path / "run")
    with pytest.raises(ConfigError, match="add --part backbone or --part connector"):
        to_file(tmp_path / "run", tmp_path / "b.pth", "rwkv6")
    with pytest.raises(ConfigError, match="name the folder of a finished run"):
        to_file(tmp_path / "no run", tmp_path / "b.pth", "rwkv6")
