"""Fixtures of several tests of weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.backbones import Transformer
from mmrnn.weights.export import export

SIZES = {"vocab": 40, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "ffn": 48}


def _llama(**more):
    model = Transformer(**SIZES, **more)
    for value in model.parameters():
        torch.nn.init.normal_(value)
    return model


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def _shard(folder, tensors, suffix="safetensors"):
    """Two files and an index, as the Hugging Face hub has them."""
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.{suffix}"
        group = {name: tensors[name].contiguous() for name in part}
        save_file(group, str(folder / file)) if suffix == "safetensors" else torch.save(group, folder / file)
        places |= dict.fromkeys(part, file)
    name = "model.safetensors.index.json" if suffix == "safetensors" else "pytorch_model.bin.index.json"
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 10**30}, "weight_map": places}))
    return folder / name


def _lora(folder, source, rank=2, alpha=6, names=("q_proj", "v_proj"), **config):
    """An adapter folder as PEFT writes it, and what it adds."""
    tensors, added = {}, {}
    for key, value in export(source, "llama").items():
        if key.endswith(tuple(f"{name}.weight" for name in names)):
            down, up = torch.randn(rank, value.shape[1]), torch.randn(value.shape[0], rank)
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            added[key] = alpha / rank * (up @ down)
    folder.mkdir(exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha, **config}))
    return tensors, added


@pytest.fixture
def llama():
    return _llama


@pytest.fixture
def same():
    return _same


@pytest.fixture
def shard():
    return _shard


@pytest.fixture
def lora():
    return _lora
