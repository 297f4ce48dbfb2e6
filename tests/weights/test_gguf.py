"""Llamas in GGUF."""

import struct

import pytest

from mmrnn.io.gguf import read_header
from mmrnn.io.tensor_files import read
from mmrnn.weights import load
from mmrnn.weights.formats.llama import GGUF_NAMES


def gguf(path, source, kind="llama"):
    """A GGUF file of a small Llama in fp32, its queries and keys in the order of llama.cpp."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    facts = {"general.architecture": (8, text(kind)), "general.alignment": (4, struct.pack("<I", 64))}
    for name, value in {"attention.head_count": 4, "attention.head_count_kv": 2, "block_count": 2}.items():
        facts[f"{kind}.{name}"] = (4, struct.pack("<I", value))
    facts[f"{kind}.rope.freq_base"] = (6, struct.pack("<f", 5000.0))
    facts[f"{kind}.attention.layer_norm_rms_epsilon"] = (6, struct.pack("<f", 1e-5))
    inverse = {theirs: name for name, theirs in GGUF_NAMES.items()}
    tensors = {}
    for ours, value in source.state_dict().items():
        pattern = ours.replace("blocks.0.", "blocks.{}.").replace("blocks.1.", "blocks.{}.")
        leaf = pattern.rpartition(".")[2]
        name = inverse[pattern] if pattern in inverse else inverse[pattern.replace(leaf, "*")].replace("*", leaf)
        name = name.replace("{}", ours.split(".")[1])
        if kind == "llama" and (".attn_q." in name or ".attn_k." in name):
            heads = 4 if ".attn_q." in name else 2
            value = value.view(heads, 2, -1, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
        tensors[name] = value
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for name, (number, raw) in facts.items():
        head += text(name) + struct.pack("<I", number) + raw
    body = b""
    for name, value in tensors.items():
        head += text(name) + struct.pack(f"<I{value.ndim}QIQ", value.ndim, *reversed(value.shape), 0, len(body))
        body += value.detach().numpy().tobytes()
        body += bytes(-len(body) % 64)
    path.write_bytes(head + bytes(-len(head) % 64) + body)


@pytest.mark.parametrize(
    ("kind", "knobs"), [("llama", {}), ("llama", {"tie_embeddings": True}), ("qwen2", {"bias": True})]
)
def test_gguf(tmp_path, kind, knobs, llama, same):
    source, target = llama(**knobs), llama(**knobs)
    gguf(tmp_path / "a.gguf", source, kind)
    report = load(target, tmp_path)
    assert report.format == "gguf"
    assert same(source, target)
    assert read_header(tmp_path / "a.gguf").metadata[f"{kind}.block_count"] == 2


def test_gguf_of_an_unknown_architecture(tmp_path, llama):
    gguf(tmp_path / "a.gguf", llama(), "gemma")
    with pytest.raises(ValueError, match=r"holds a 'gemma'; known architectures: llama, qwen2, qwen3"):
        read(tmp_path / "a.gguf")
