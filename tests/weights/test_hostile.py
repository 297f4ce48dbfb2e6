"""Nothing that a file contains is run, believed or written: one sentence says what is wrong with it."""

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from mmrnn import weights
from mmrnn.backbones import RWKV6
from mmrnn.checkpoints.convert import to_folder
from mmrnn.weights.export import export

MANY = 10**12


def rwkv():
    return RWKV6(vocab=20, width=32, depth=2, head_size=16, mix_rank=4, decay_rank=4)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def bomb(path):
    torch.save({"emb.weight": Bomb()}, path)


def bare_bomb(path):
    path.write_bytes(pickle.dumps(Bomb()))


def cut(path):
    torch.save({"emb.weight": torch.zeros(20, 32)}, path)
    path.write_bytes(path.read_bytes()[:1000])


def cut_safetensors(path):
    save_file({"emb.weight": torch.zeros(20, 32)}, str(path))
    path.write_bytes(path.read_bytes()[:1000])


def claimed(path):
    """A shape of 10^12 elements over one."""
    torch.save({"emb.weight": torch.zeros(1).expand(MANY)}, path)


def without_memory(path):
    torch.save({"emb.weight": torch.empty(MANY, device="meta")}, path)


def sparse(path):
    torch.save({"emb.weight": torch.sparse_coo_tensor(torch.tensor([[0]]), [1.0], (MANY,))}, path)


def compressed_sparse(path):
    torch.save({"emb.weight": torch.eye(20, 32).to_sparse_csr()}, path)


def complex_numbers(path):
    torch.save({"emb.weight": torch.zeros(20, 32, dtype=torch.complex64)}, path)


def complex_safetensors(path):
    save_file({"emb.weight": torch.zeros(20, 32, dtype=torch.complex64)}, str(path))


def shared_dictionaries(path):
    """20 kB, and 60^5 names."""
    shared = {str(index): torch.zeros(1) for index in range(60)}
    for _ in range(4):
        shared = {str(index): shared for index in range(60)}
    torch.save(shared, path)


def cyclic_dictionaries(path):
    content = {"emb.weight": torch.zeros(20, 32)}
    content["module"] = content["again"] = content
    torch.save(content, path)


def deflated(path):
    """A megabyte of names in a few kilobytes; nothing bounds how much more it could be."""
    torch.save({"x" * 2**20: torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


class Allocation:
    def __reduce__(self):
        return torch.Tensor, (10_000, 10_000)


def allocated(path):
    """A tensor that the file makes the reader allocate, and whose elements nobody has written."""
    torch.save({"emb.weight": Allocation()}, path)


def listed(path):
    torch.save([1, 2], path)


def long_header(path):
    path.write_bytes((10**15).to_bytes(8, "little") + b"{}")


def no_header(path):
    path.write_bytes(b"this is no safetensors file at all")


def large(path):
    text = json.dumps({"emb.weight": {"dtype": "F32", "shape": [MANY], "data_offsets": [0, 4 * MANY]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))


def overlapping(path):
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    text = json.dumps({"a": one, "b": one}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))


def index(path, **places):
    save_file({"emb.weight": torch.zeros(20, 32)}, str(path.parent / "shard.safetensors"))
    path.write_text(json.dumps({"weight_map": places}))


def traversal(path):
    index(path, **{"emb.weight": "../../secret.safetensors"})


def absolute(path):
    index(path, **{"emb.weight": "/etc/passwd"})


def not_there(path):
    index(path, **{"emb.weight": "other.safetensors"})


def promise(path):
    index(path, **{"emb.weight": "shard.safetensors", "head.weight": "shard.safetensors"})


def no_map(path):
    path.write_text("[" * 100_000)


def gguf(path, facts=(), tensors=(), count=None, pad=64):
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    body = b"GGUF" + struct.pack("<IQQ", 3, len(tensors) if count is None else count, len(facts))
    for name, kind, value in facts:
        body += text(name) + struct.pack("<I", kind) + (text(value) if kind == 8 else value)
    for name, shape, kind, offset in tensors:
        body += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    path.write_bytes(body + bytes(pad))


LLAMA = [("general.architecture", 8, "llama")]


def gguf_large(path):
    gguf(path, LLAMA, [("token_embd.weight", [MANY], 0, 0)])


def gguf_cut(path):
    gguf(path, LLAMA, [("token_embd.weight", [64], 0, 0)], pad=64)


def gguf_entries(path):
    gguf(path, LLAMA, count=2**60)


def gguf_text(path):
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + bytes(64))


def gguf_list(path):
    gguf(path, [("tokens", 9, struct.pack("<IQ", 8, 2**40))])


def gguf_nested(path):
    gguf(path, [("tokens", 9, struct.pack("<IQ", 9, 1) * 1000)])


def gguf_kind(path):
    gguf(path, LLAMA, [("token_embd.weight", [32], 199, 0)])


def gguf_offset(path):
    gguf(path, LLAMA, [("token_embd.weight", [4], 0, 2**62)])


def gguf_version(path):
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 77, 0, 0))


def gguf_alignment(path):
    gguf(path, [("general.alignment", 4, struct.pack("<I", 0))])


CASES = {
    "bomb.pth": (bomb, "could run its code"),
    "bare.pth": (bare_bomb, "bare.pth"),
    "cut.pth": (cut, "cut.pth is damaged"),
    "claimed.pth": (claimed, "claims 1000000000000 elements and does not have them"),
    "meta.pth": (without_memory, "not a plain tensor"),
    "sparse.pth": (sparse, "sparse.pth"),
    "csr.pth": (compressed_sparse, "not a plain tensor (torch.sparse_csr)"),
    "complex.pth": (complex_numbers, "emb.weight is complex (torch.complex64)"),
    "complex.safetensors": (complex_safetensors, "emb.weight is complex (torch.complex64)"),
    "shared.pth": (shared_dictionaries, "is in it more than once"),
    "cyclic.pth": (cyclic_dictionaries, "is in it more than once"),
    "deflated.pth": (deflated, "is compressed, which torch.save never does"),
    "allocated.pth": (allocated, "its tensors claim 400000000 bytes"),
    "list.pth": (listed, "not a dictionary of tensors"),
    "cut.safetensors": (cut_safetensors, "cut.safetensors is damaged"),
    "long.safetensors": (long_header, "long.safetensors is damaged"),
    "none.safetensors": (no_header, "none.safetensors is damaged"),
    "large.safetensors": (large, "large.safetensors is damaged"),
    "overlapping.safetensors": (overlapping, "overlapping.safetensors is damaged"),
    "away.safetensors.index.json": (traversal, "not a weight file of its own folder"),
    "root.safetensors.index.json": (absolute, "not a weight file of its own folder"),
    "gone.safetensors.index.json": (not_there, "which is not in"),
    "less.safetensors.index.json": (promise, "lists 'head.weight' in shard.safetensors"),
    "deep.safetensors.index.json": (no_map, "is not JSON"),
    "large.gguf": (gguf_large, "token_embd.weight lies beyond the end of the file"),
    "cut.gguf": (gguf_cut, "token_embd.weight lies beyond the end of the file"),
    "entries.gguf": (gguf_entries, "the file is too short for them"),
    "text.gguf": (gguf_text, "are announced at byte"),
    "list.gguf": (gguf_list, "the file is too short for them"),
    "nested.gguf": (gguf_nested, "unknown type 9"),
    "kind.gguf": (gguf_kind, "of the unknown type 199"),
    "offset.gguf": (gguf_offset, "lies beyond the end of the file"),
    "version.gguf": (gguf_version, "version 77"),
    "alignment.gguf": (gguf_alignment, "an alignment of 0"),
    "wrong.gguf": (no_header, "not a GGUF file"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_or_broken_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = CASES[name]
    if make is gguf_kind:
        pytest.importorskip("gguf")
    make(tmp_path / name)
    model, before = rwkv(), sorted(tmp_path.iterdir())
    values = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        weights.load(model, tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["folder", "two", "text", "nothing"])
def test_what_is_no_weight_file(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "two").mkdir()
    for one in "ab":
        save_file({one: torch.zeros(1)}, str(tmp_path / "two" / f"{one}.safetensors"))
    (tmp_path / "text").write_text("hello")
    message = {
        "folder": "no weight file in",
        "two": "name the one to load",
        "text": "known suffixes",
        "nothing": "no weight",
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message[name]):
        weights.load(rwkv(), tmp_path / name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(20, 32, dtype=torch.complex64), "is complex"),
        (torch.eye(20, 32).to_sparse(), "not a plain tensor"),
        (torch.zeros(20, 32, dtype=torch.int8), "of another kind: embedding.weight: torch.int8"),
    ],
)
def test_values_that_are_no_weights(value, message):
    """Complex numbers lost their imaginary part, and quantised ones their scale, without a word."""
    model = rwkv()
    tensors = {**export(model, "rwkv6"), "emb.weight": value}
    with pytest.raises(ValueError, match=message):
        weights.load(model, tensors)


def test_sizes_that_are_claimed_by_names(tmp_path):
    """One name made a model of ten million layers before a tensor was compared."""
    tensors = {**export(rwkv(), "rwkv6"), "blocks.9999999.ln1.weight": torch.zeros(32)}
    torch.save({name: value.clone() for name, value in tensors.items()}, tmp_path / "deep.pth")
    with pytest.raises(weights.WeightsError, match=r"claim depth=10000000, and the tensors allow \d\d at most"):
        to_folder(tmp_path / "deep.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_without_the_tensors_behind_them(tmp_path):
    torch.save({"blocks.0.att.time_maa_x": torch.zeros(0)}, tmp_path / "empty.pth")
    with pytest.raises(weights.WeightsError, match=r"are not in these tensors: KeyError: 'emb\.weight'"):
        to_folder(tmp_path / "empty.pth", tmp_path / "out")
