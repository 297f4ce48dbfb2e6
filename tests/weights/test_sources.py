"""Sources of tensors: files, shards, several files, dictionaries; and modules without memory."""

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.connectors import MLP
from mmrnn.weights import load
from mmrnn.weights.export import export


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path, suffix, llama, same, shard):
    source, target, other = llama(), llama(), llama()
    index = shard(tmp_path, export(source, "llama"), suffix)
    assert load(target, tmp_path).format == "llama"
    load(other, index)
    assert same(source, target)
    assert same(source, other)


def test_several_files_complete_each_other(tmp_path, llama, same):
    source, target = llama(), llama()
    tensors = export(source, "llama")
    names = list(tensors)
    torch.save({name: tensors[name] for name in names[:5]}, tmp_path / "a.pth")
    torch.save({name: tensors[name] for name in names[5:]}, tmp_path / "b.pth")
    load(target, [tmp_path / "a.pth", tmp_path / "b.pth"])
    assert same(source, target)
    torch.save({names[7]: tensors[names[7]]}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="which another of these files holds, too"):
        load(target, [tmp_path / "b.pth", tmp_path / "c.pth"])


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_what_training_programs_wrap(tmp_path, key, llama, same):
    source, target = llama(), llama()
    torch.save({key: export(source, "llama"), "epoch": 3, "loss": None}, tmp_path / "a.pth")
    load(target, tmp_path / "a.pth")
    assert same(source, target)


def test_a_dictionary_for_each_part(tmp_path, same):
    """Prismatic's files."""
    source, target = MLP(6, 8), MLP(6, 8)
    torch.save({"model": {"projector": export(source, "plain"), "vision": {}}}, tmp_path / "a.pt")
    assert load(target, tmp_path / "a.pt").format == "prismatic"
    assert same(source, target)


def test_wrappers_in_the_middle_of_names(llama, same):
    source, target = llama(), llama()
    tensors = export(source, "llama")
    wrapped = {f"_fsdp_wrapped_module.{n.replace('mlp.', 'mlp._fsdp_wrapped_module.')}": v for n, v in tensors.items()}
    load(target, wrapped)
    assert same(source, target)


def test_a_module_without_memory_takes_the_tensors_of_the_file(tmp_path, llama, same):
    source = llama()
    save_file(export(source, "llama"), str(tmp_path / "a.safetensors"))
    before = (tmp_path / "a.safetensors").read_bytes()
    with torch.device("meta"):
        target = llama()
    target.norm.weight.requires_grad_(False)
    load(target, tmp_path)
    assert same(source, target)
    assert not target.norm.weight.requires_grad
    assert target.output.weight.requires_grad
    with torch.no_grad():
        target.output.weight.zero_()
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_a_module_without_memory_keeps_its_type(tmp_path, llama):
    source = llama()
    save_file(
        {name: value.bfloat16() for name, value in export(source, "llama").items()}, str(tmp_path / "a.safetensors")
    )
    for dtype in (torch.float32, torch.bfloat16):
        with torch.device("meta"):
            target = llama().to(dtype)
        load(target, tmp_path)
        assert target.output.weight.dtype == dtype
        assert torch.equal(target.output.weight, source.output.weight.bfloat16().to(dtype))


def test_two_names_of_one_parameter_stay_one():
    with torch.device("meta"):
        tied = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    value = torch.randn(3, 3)
    load(tied, {"0.weight": value, "1.weight": value})
    assert tied[0].weight is tied[1].weight
