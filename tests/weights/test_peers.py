"""Small random models made by the libraries that others use, loaded here: the same features, logits and words."""

import json
import os
import subprocess
import sys

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.checkpoints.convert import to_folder
from mmrnn.config.instantiate import instantiate
from mmrnn.encoders import OpenCLIPViT, TimmViT
from mmrnn.types import Sequence
from mmrnn.weights import load
from mmrnn.weights.export import export

CLOSE = {"atol": 1e-5, "rtol": 0}


def randomised(model):
    """Every parameter counts: none is left at zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def replies(model, ids, count):
    """Greedy tokens over the state."""
    hidden, state = model(Sequence(ids))
    found = []
    for _ in range(count):
        found.append(model.head(hidden[:, -1]).argmax(-1))
        hidden, state = model(Sequence(found[-1][:, None]), state)
    return torch.stack(found, 1)


LANGUAGE = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Llama", {}),
        ("Llama", {"tie_word_embeddings": True, "head_dim": 16}),
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", {"head_dim": 16}),
    ],
)
@torch.no_grad()
def test_language_models_of_transformers(kind, more, tmp_path):
    """From the folder that transformers saves: its config.json tells what the tensors do not."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**LANGUAGE, **HEADS, **more, eos_token_id=None, pad_token_id=0)
    peer = randomised(getattr(transformers, f"{kind}ForCausalLM")(config))
    peer.save_pretrained(tmp_path / "theirs")
    assert to_folder(tmp_path / "theirs", tmp_path / "ours").format == "llama"
    import yaml

    ours = instantiate(yaml.safe_load((tmp_path / "ours" / "backbone" / "ours.yaml").read_text())).eval()
    load(ours, tmp_path / "theirs")
    ids = torch.randint(1, 60, (2, 9))
    torch.testing.assert_close(ours.head(ours(Sequence(ids))[0]), peer(ids).logits, **CLOSE)
    written = peer.generate(ids, max_new_tokens=6, do_sample=False)[:, 9:]
    assert replies(ours, ids, written.shape[1]).tolist() == written.tolist()


VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
ARCH = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
TOWERS = {
    "CLIP": ("vit_large_patch14_clip_quickgelu_336", {}, ARCH),
    "Siglip": ("vit_so400m_patch14_siglip_gap_384", {"act": "gelu_tanh"}, ARCH),
    "Dinov2": ("vit_large_patch14_dinov2", {}, {**ARCH, "init_values": 1.0}),
    "Dinov2WithRegisters": ("vit_large_patch14_reg4_dinov2", {}, {**ARCH, "init_values": 1.0}),
}


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_towers_of_transformers(kind, saved, tmp_path):
    """The block before the last, and the last one behind the final norm; from the saved file and from memory."""
    transformers = pytest.importorskip("transformers")
    name, knobs, arch = TOWERS[kind]
    middle = "" if kind.startswith("Dino") else "Vision"
    sizes = VISION if kind != "Dinov2WithRegisters" and kind != "Dinov2" else {**VISION, "mlp_ratio": 2}
    config = getattr(transformers, f"{kind}{middle}Config")(**sizes, image_size=32, patch_size=8)
    peer = randomised(getattr(transformers, f"{kind}{middle}Model")(config))
    source = peer.state_dict()
    if saved:
        peer.save_pretrained(tmp_path)
        source = tmp_path
    images = torch.randn(2, 3, 32, 32)
    found = peer(pixel_values=images, output_hidden_states=True)
    first = {"CLIP": 1, "Siglip": 0, "Dinov2": 1, "Dinov2WithRegisters": 5}[kind]
    for layer, norm in ((-2, False), (-1, True)):
        ours = TimmViT(name=name, size=32, depth=3, layer=layer, norm=norm, arch=arch, **knobs).eval()
        load(ours, source)
        expected = found.hidden_states[-2] if layer == -2 else found.last_hidden_state
        if kind == "CLIP" and norm:
            expected = peer.post_layernorm(expected)
        torch.testing.assert_close(ours(images), expected[:, first:], **CLOSE)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_so400m_patch14_siglip_384"])
@torch.no_grad()
def test_towers_of_timm(name):
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "depth": 3, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
    peer = randomised(timm.create_model(name, num_classes=5 if "siglip" not in name else 0, **sizes))
    ours = TimmViT(name=name, size=32, depth=3, layer=-2, arch=ARCH).eval()
    load(ours, peer.state_dict())
    images = torch.randn(2, 3, 32, 32)
    expected = peer.forward_intermediates(images, indices=[-2], output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(ours(images), expected, **CLOSE)


@pytest.mark.parametrize("part", [OpenCLIPViT, TimmViT])
@torch.no_grad()
def test_towers_of_open_clip(part):
    open_clip = pytest.importorskip("open_clip")
    vision = {"layers": 3, "width": 24, "head_width": 12, "patch_size": 8, "image_size": 32, "mlp_ratio": 2.0}
    text = {"context_length": 8, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1}
    peer = randomised(open_clip.CLIP(8, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text), True))
    images = torch.randn(2, 3, 32, 32)
    found = peer.visual.forward_intermediates(
        images, indices=[-2], output_fmt="NLC", intermediates_only=True, stop_early=True
    )
    if part is OpenCLIPViT:
        arch = {"patch_size": 8, "width": 24, "head_width": 12, "mlp_ratio": 2.0}
        ours = OpenCLIPViT(name="ViT-L-14-quickgelu", size=32, depth=3, layer=-2, arch=arch).eval()
    else:
        name = "vit_large_patch14_clip_quickgelu_224"
        ours = TimmViT(name=name, size=32, depth=3, layer=-2, arch=ARCH).eval()
    load(ours, peer.state_dict())
    torch.testing.assert_close(ours(images), found["image_intermediates"][0], **CLOSE)


RWKV = {"vocab": 50, "width": 64, "depth": 2, "head_size": 16, "heads": 4, "ffn": 96}


def older(tensors):
    """One decay and one bonus a head, as RWKV-5.0 and 5.1 have them."""
    for name in [name for name in tensors if name.endswith(("time_decay", "time_faaaa"))]:
        value = tensors.pop(name)[:, :1].flatten()
        tensors[name.replace("time_faaaa", "time_first")] = value.clone()
    return tensors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", ["5.0", "5.1", "5.2", "6.0"])
@torch.no_grad()
def test_rwkv_in_its_package(version, tmp_path, monkeypatch):
    """Our files run there, and what runs there runs here."""
    monkeypatch.setenv("RWKV_JIT_ON", "0")
    monkeypatch.setenv("RWKV_CUDA_ON", "0")
    package = pytest.importorskip("rwkv.model")
    make_one = (
        (lambda: RWKV6(**RWKV, mix_rank=8, decay_rank=8))
        if version == "6.0"
        else (lambda: RWKV5(**RWKV, gate=version != "5.0"))
    )
    source = make_one()
    for value in source.parameters():
        torch.nn.init.normal_(value, std=0.3)
    tensors = {name: value.clone() for name, value in export(source, "rwkv6" if version == "6.0" else "rwkv5").items()}
    torch.save(older(tensors) if version in ("5.0", "5.1") else tensors, tmp_path / "a.pth")
    peer = package.RWKV(model=str(tmp_path / "a"), strategy="cpu fp32", verbose=False)
    assert peer.version == float(version)
    ours = make_one().eval()
    load(ours, tmp_path / "a.pth")
    ids = torch.randint(1, 50, (11,)).tolist()
    expected, state = peer.forward(ids, None, full_output=True)
    hidden, _ = ours(Sequence(torch.tensor([ids])))
    torch.testing.assert_close(ours.head(hidden)[0], expected, atol=1e-4, rtol=0)
    written, logits = [], expected[-1]
    for _ in range(6):
        written.append(int(logits.argmax()))
        logits, state = peer.forward([written[-1]], state)
    assert replies(ours, torch.tensor([ids]), 6)[0].tolist() == written


PEER_7 = """
import sys
import torch
from rwkv.model import RWKV

model = RWKV(model=sys.argv[1], strategy="cpu fp32")
case = torch.load(sys.argv[2])
state = model.generate_zero_state()
for layer, start in enumerate(case["states"]):
    state[3 * layer + 1] = start
logits, state = model.forward(case["ids"], state, full_output=True)
written, last = [], logits[-1]
for _ in range(6):
    written.append(int(last.argmax()))
    last, state = model.forward(written[-1], state)
torch.save({"logits": logits, "written": written}, sys.argv[3])
"""


@pytest.mark.slow
@torch.no_grad()
def test_rwkv7_in_its_package(tmp_path):
    """The package chooses RWKV-7 when it is imported, so it runs in a process of its own; with learned start states."""
    pytest.importorskip("rwkv")
    sizes = {"vocab": 50, "width": 128, "depth": 2, "head_size": 64}
    ranks = {"decay_rank": 8, "rate_rank": 8, "residual_rank": 8, "gate_rank": 8}
    ours = RWKV7(**sizes, **ranks, learned_state=True).eval()
    for value in ours.parameters():
        torch.nn.init.normal_(value, std=0.3)
    tensors = {name: value.clone() for name, value in export(ours, "rwkv7").items()}
    states = [tensors.pop(f"blocks.{layer}.att.time_state") for layer in range(2)]
    ids = torch.randint(1, 50, (11,)).tolist()
    torch.save(tensors, tmp_path / "a.pth")
    torch.save({"ids": ids, "states": states}, tmp_path / "case.pt")
    environment = {**os.environ, "RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}
    command = [sys.executable, "-c", PEER_7, tmp_path / "a", tmp_path / "case.pt", tmp_path / "found.pt"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found = torch.load(tmp_path / "found.pt")
    hidden, _ = ours(Sequence(torch.tensor([ids])))
    torch.testing.assert_close(ours.head(hidden)[0], found["logits"], atol=1e-4, rtol=1e-5)
    assert replies(ours, torch.tensor([ids]), 6)[0].tolist() == found["written"]


def test_the_config_that_transformers_writes_is_read(tmp_path):
    """A rotation that Transformer cannot do is refused, not ignored."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**LANGUAGE, **HEADS)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    content = json.loads(path.read_text())
    content["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="scaled RoPE"):
        to_folder(tmp_path / "theirs", tmp_path / "ours")
