"""Loading is complete, or says what does not fit; whatever wrappers a training has put around."""

import pytest
import torch
from safetensors.torch import save_file

from mmrnn import weights
from mmrnn.backbones import RWKV6, Transformer
from mmrnn.weights import WeightsError


def rwkv():
    return RWKV6(vocab=20, width=32, depth=2, head_size=16, mix_rank=4, decay_rank=4)


def published(model):
    """The tensors of a model in the layout of a published RWKV-6 file."""
    from mmrnn.weights.formats.rwkv import RWKV6_NAMES

    inverse = {ours: theirs for theirs, ours in RWKV6_NAMES.items()}
    named = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        layer = parts[1] if parts[0] == "blocks" else None
        pattern = name if layer is None else ".".join(["blocks", "{}", *parts[2:]])
        theirs = inverse.get(pattern) or inverse[pattern.rsplit(".", 1)[0] + ".*"].replace("*", parts[-1])
        vector = value.dim() == 1 and ("time_" in theirs)
        named[theirs.replace("{}", layer or "")] = value.view(1, 1, -1) if vector else value
    return named


def test_a_file_of_before_zip_archives(tmp_path):
    source, target = rwkv(), rwkv()
    torch.save(published(source), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert weights.load(target, tmp_path / "old.pth").format == "rwkv6"
    assert torch.equal(source.output.weight, target.output.weight)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_forward_module.", "_orig_mod.module."])
def test_a_published_file(tmp_path, suffix, prefix):
    source, target = rwkv(), rwkv()
    named = {prefix + name: value.contiguous() for name, value in published(source).items()}
    path = tmp_path / f"anything{suffix}"
    torch.save(named, path) if suffix == ".pth" else save_file(named, str(path))
    report = weights.load(target, path)
    assert report.format == "rwkv6"
    assert report.loaded == len(named)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_our_own_names_and_bf16_files(tmp_path):
    source, target = rwkv(), rwkv()
    save_file({name: value.bfloat16() for name, value in source.state_dict().items()}, str(tmp_path / "a.safetensors"))
    assert weights.load(target, tmp_path).format == "mmrnn"
    assert target.norm.weight.dtype == torch.float32
    assert torch.equal(target.output.weight, source.output.weight.bfloat16().float())


def test_a_load_that_fails_names_everything_and_changes_nothing():
    model, named = rwkv(), published(rwkv())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del named["blocks.1.att.gate.weight"]
    named["ln_out.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as caught:
        weights.load(model, named)
    assert "missing: blocks.1.time_mix.gate.weight" in str(caught.value)
    assert "norm.bias: (5,), the module has (32,)" in str(caught.value)
    with pytest.raises(WeightsError, match=r"unexpected: blocks\.0\.att\.surprise"):
        weights.load(model, {**published(rwkv()), "blocks.0.att.surprise": torch.zeros(1)})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_many_faults_are_counted():
    named = {**published(rwkv()), **{f"extra.{i}": torch.zeros(1) for i in range(25)}}
    with pytest.raises(WeightsError, match="and 15 more"):
        weights.load(rwkv(), named)


def test_formats_are_known_by_their_names():
    with pytest.raises(WeightsError, match=r"no format of RWKV6 \(fla, hf_rwkv6, mmrnn, rwkv6\) has these names: a, b"):
        weights.load(rwkv(), {"a": torch.zeros(1), "b": torch.zeros(1)})
    with pytest.raises(WeightsError, match="RWKV6 has no weight format 'llama'"):
        weights.load(rwkv(), published(rwkv()), format="llama")


def test_a_tied_head_in_a_file_is_left_out():
    sizes = {"vocab": 20, "width": 32, "depth": 1, "heads": 2, "ffn": 48}
    open_, tied = Transformer(**sizes), Transformer(**sizes, tie_embeddings=True)
    from mmrnn.weights.formats.llama import NAMES

    names = {ours: theirs for theirs, ours in NAMES.items()}
    named = {}
    for name, value in open_.state_dict().items():
        pattern = name.replace("blocks.0", "blocks.{}")
        theirs = names.get(pattern) or names[pattern.rsplit(".", 1)[0] + ".*"].replace("*", name.rsplit(".", 1)[1])
        named[theirs.replace("{}", "0")] = value
    report = weights.load(tied, named)
    assert "left out" in report.notes[0]
    assert torch.equal(tied.embedding.weight, open_.embedding.weight)
