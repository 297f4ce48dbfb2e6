"""Damaged files: each is read, or refused by a sentence of ours; nothing is written, and nothing large is built."""

import resource
import shutil
import struct
import traceback

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mmrnn.backbones import RWKV6, Transformer
from mmrnn.checkpoints.convert import to_folder
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.model.build import build
from mmrnn.weights.export import export

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FUZZ = settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
GIB = 2**30

# Where bytes change, as parts of the file from its front (headers) or from its end (directories of archives).
PLACES = st.one_of(st.integers(0, 400), st.integers(-1200, -1), st.floats(0, 1, exclude_max=True))
CHANGES = st.tuples(st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=4), st.none() | st.floats(0, 1))


def damaged(content: bytes, changes) -> bytes:
    """Some bytes replaced, and the end cut off."""
    flips, cut = changes
    changed = bytearray(content)
    for place, value in flips:
        at = int(place * len(changed)) if isinstance(place, float) else place
        if -len(changed) <= at < len(changed):
            changed[at] = value
    return bytes(changed if cut is None else changed[: int(cut * len(changed))])


def refused_by_us(call) -> bool:
    """False if the call came through; an error that is not raised by a line of mmrnn fails."""
    try:
        call()
    except (ValueError, FileNotFoundError) as error:
        raised = error
    else:
        return False
    assert str(raised).strip()
    frames = [frame.filename for frame in traceback.extract_tb(raised.__traceback__)]
    assert "/mmrnn/" in frames[-1], f"{type(raised).__name__} of {frames[-1]}: {raised}"
    return True


def rwkv():
    return export(RWKV6(vocab=20, width=32, depth=2, head_size=16, mix_rank=4, decay_rank=4), "rwkv6")


def write_gguf(path):
    """A Llama of one block, quantised to nothing."""
    model = Transformer(vocab=20, width=16, depth=1, heads=2, kv_heads=2, ffn=24, tie_embeddings=True)
    facts = {"attention.head_count": 2, "attention.head_count_kv": 2, "block_count": 1}

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    entries += [text(f"llama.{name}") + struct.pack("<II", 4, value) for name, value in facts.items()]
    entries.append(text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers.0": "blk.0"}
    words = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    words |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    words |= {"mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm"}
    head, body = b"", b""
    for name, value in export(model, "llama").items():
        for old, new in {**names, **words}.items():
            name = name.replace(old, new)
        head += text(name) + struct.pack(f"<I{value.ndim}QIQ", value.ndim, *reversed(value.shape), 0, len(body))
        body += value.detach().numpy().tobytes() + bytes(-value.nbytes % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(export(model, "llama")), len(entries)) + b"".join(entries) + head
    path.write_bytes(head + bytes(-len(head) % 32) + body)


FILES = {
    "a.safetensors": lambda path: save_file(rwkv(), str(path)),
    "a.pth": lambda path: torch.save({name: value.clone() for name, value in rwkv().items()}, path),
    "old.pth": lambda path: torch.save(
        {name: value.clone() for name, value in rwkv().items()}, path, _use_new_zipfile_serialization=False
    ),
    "a.gguf": write_gguf,
}


@pytest.fixture
def bounded_memory():
    """Reading a file of some kilobytes allocates less than a gigabyte."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < GIB


@pytest.mark.parametrize("name", FILES)
def test_damaged_weights(name, tmp_path, bounded_memory):
    path, out = tmp_path / name, tmp_path / "out"
    FILES[name](path)
    whole, found = path.read_bytes(), set()
    assert not refused_by_us(lambda: to_folder(path, out))
    shutil.rmtree(out)

    @FUZZ
    @given(CHANGES)
    def run(changes):
        path.write_bytes(damaged(whole, changes))
        refused = refused_by_us(lambda: to_folder(path, out))
        found.add(refused)
        assert sorted(one.name for one in tmp_path.iterdir()) == sorted({name} if refused else {name, "out"})
        shutil.rmtree(out, ignore_errors=True)

    run()
    assert found == {True, False}


def test_damaged_configurations(tmp_path, bounded_memory):
    """The tensors beside them are whole. A class, a size, a kind or a name is another, or the YAML is none."""
    save(build(compose("model=visualrwkv6_tiny")), tmp_path)
    path = tmp_path / "config.yaml"
    whole = path.read_bytes()
    files = sorted(one.name for one in tmp_path.iterdir())
    assert not refused_by_us(lambda: load_model(tmp_path))
    found = set()

    @settings(FUZZ, max_examples=150)
    @given(CHANGES)
    def run(changes):
        path.write_bytes(damaged(whole, changes))
        found.add(refused_by_us(lambda: load_model(tmp_path)))
        assert sorted(one.name for one in tmp_path.iterdir()) == files

    run()
    assert found == {True, False}
