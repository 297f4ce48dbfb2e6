"""RWKV under the names of transformers and of flash-linear-attention: the same names, shapes and logits."""

import re
import warnings

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.checkpoints.convert import to_file, to_folder
from mmrnn.config.instantiate import instantiate
from mmrnn.io.tensor_files import read
from mmrnn.types import Sequence
from mmrnn.weights import WeightsError, load
from mmrnn.weights.export import export

SIZES = {"vocab": 40, "width": 128, "depth": 2, "head_size": 64, "ffn": 96}
MODELS = {
    5: lambda **more: RWKV5(**SIZES, **more),
    6: lambda **more: RWKV6(**SIZES, mix_rank=4, decay_rank=6, **more),
    7: lambda **more: RWKV7(**SIZES, decay_rank=5, rate_rank=6, residual_rank=7, gate_rank=8, **more),
}
CONFIG = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 40, "fuse_norm": False}


def filled(module):
    torch.manual_seed(0)
    for value in module.parameters():
        nn.init.normal_(value, std=0.2)
    return module.eval()


class HeadNorm(nn.GroupNorm):
    """fla's group norm needs Triton: the same over (b, t, d)."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).view_as(x)


@pytest.fixture
def peer(monkeypatch):
    """A small model of fla, whose Triton kernels (they need a GPU) are replaced by fla's own references in torch."""
    pytest.importorskip("fla")
    warnings.filterwarnings("ignore")
    from fla.layers import rwkv6, rwkv7
    from fla.models.rwkv6 import modeling_rwkv6
    from fla.models.rwkv7 import modeling_rwkv7
    from fla.modules.token_shift import token_shift_ref
    from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6
    from fla.ops.rwkv7.fused_addcmul import torch_addcmul_rwkv7
    from fla.ops.rwkv7.fused_k_update import k_update_ref
    from fla.ops.rwkv7.gate_output_correction import gate_output_correction_ref

    def token_shift(x, cu_seqlens=None, output_cache=False, cache=None):
        return (token_shift_ref(x), None) if output_cache else token_shift_ref(x)

    def recurrent_rwkv6(r, k, v, w, u, scale, **_):
        out, state = naive_recurrent_rwkv6(*(x.transpose(1, 2) for x in (r, k, v, w)), u, scale=scale)
        return out.transpose(1, 2), state

    def recurrent_rwkv7(r, w, k, v, kk, a, **_):
        """The recurrence of the paper: the state maps keys to values."""
        state, outputs = torch.zeros(*r.shape[:1], *r.shape[2:], r.shape[-1]), []  # b h v k
        for at in range(r.shape[1]):
            one = {name: x[:, at] for name, x in {"r": r, "w": w, "k": k, "v": v, "kk": kk, "a": a}.items()}
            removed = (state @ -one["kk"][..., None]) @ (one["kk"] * one["a"])[..., None, :]
            state = state * one["w"].exp()[..., None, :] + removed + one["v"][..., None] @ one["k"][..., None, :]
            outputs.append((state @ one["r"][..., None])[..., 0])
        return torch.stack(outputs, 1), None

    for module in (rwkv6, rwkv7, modeling_rwkv6, modeling_rwkv7):
        monkeypatch.setattr(module, "token_shift", token_shift)
    monkeypatch.setattr(rwkv6, "GroupNorm", lambda groups, size, eps, **_: HeadNorm(groups, size, eps=eps))
    monkeypatch.setattr(rwkv6, "fused_recurrent_rwkv6", recurrent_rwkv6)
    monkeypatch.setattr(rwkv7, "fused_mul_recurrent_rwkv7", recurrent_rwkv7)
    monkeypatch.setattr(rwkv7, "fused_addcmul_rwkv7", torch_addcmul_rwkv7)
    monkeypatch.setattr(rwkv7, "fused_k_rwkv7", k_update_ref)
    monkeypatch.setattr(rwkv7, "gate_output_correction", gate_output_correction_ref)

    def make(version):
        if version == 6:
            ranks = {"proj_low_rank_dim": 4, "gate_low_rank_dim": 6}
            config = modeling_rwkv6.RWKV6Config(**CONFIG, **ranks, num_heads=2, expand_k=1.0, use_cache=False)
            model = modeling_rwkv6.RWKV6ForCausalLM(config)
        else:
            ranks = {f"{name}_low_rank_dim": rank for name, rank in {"decay": 5, "a": 6, "v": 7, "gate": 8}.items()}
            config = modeling_rwkv7.RWKV7Config(**CONFIG, **ranks, use_cache=False)
            model = modeling_rwkv7.RWKV7ForCausalLM(config)
        for layer in model.model.layers:
            layer.attn.gate_fn, layer.ffn.act_fn = F.silu, lambda x: F.relu(x).square()
        return filled(model)

    return make


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("version", [6, 7])
def test_models_of_fla(version, peer, tmp_path):
    """From the folder that fla saves, and back into fla's model."""
    theirs, ids = peer(version), torch.randint(1, 40, (2, 9))
    theirs.save_pretrained(tmp_path / "theirs")
    report = to_folder(tmp_path / "theirs", tmp_path / "ours")
    assert report.format == "fla"
    assert bool(report.notes) == (version == 6)
    ours = instantiate(yaml.safe_load((tmp_path / "ours" / "backbone" / "ours.yaml").read_text())).eval()
    assert type(ours) is type(MODELS[version]())
    load(ours, tmp_path / "ours")
    if version == 6:
        # fla's eps is 1e-5; with that of RWKV-6 everything else is compared.
        for layer in theirs.model.layers:
            layer.attn.g_norm.eps = 64e-5
    torch.testing.assert_close(ours.head(ours(Sequence(ids))[0]), theirs(ids).logits, atol=2e-5, rtol=1e-5)
    to_file(tmp_path / "ours", tmp_path / "back.safetensors", "fla")
    back, expected = read(tmp_path / "back.safetensors"), theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in back.items())


def test_shift_weights_of_old_files_of_fla():
    """Before 2025 one tensor held all six."""
    source = filled(MODELS[7]())
    tensors = export(source, "fla")
    for layer in range(2):
        stem = f"model.layers.{layer}.attn.x_"
        tensors[f"{stem}x"] = torch.cat([tensors.pop(f"{stem}{x}")[0] for x in "rwkvag"])
    old = MODELS[7]()
    assert load(old, tensors).format == "fla"
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in source.state_dict().items())


WORDS = ("key", "value", "receptance", "gate")


def hf_names(version, depth):
    """Names in the code of RWKV/rwkv-5-world-1b5 and RWKV/v6-Finch-1B6-HF, written down by hand."""
    own = {
        5: [
            *(f"attention.time_mix_{word}" for word in WORDS),
            "feed_forward.time_mix_key",
            "feed_forward.time_mix_receptance",
        ],
        6: [
            *(f"attention.time_maa_{one}" for one in ("x", "w", "k", "v", "r", "g", "w1", "w2")),
            *(f"attention.time_decay_{one}" for one in ("w1", "w2")),
            *(f"feed_forward.time_maa_{one}" for one in "kr"),
        ],
    }[version]
    names = [*own, "attention.time_decay", "attention.time_faaaa"]
    names += [f"attention.{word}.weight" for word in (*WORDS, "output", "ln_x")] + ["attention.ln_x.bias"]
    names += [f"feed_forward.{word}.weight" for word in ("key", "receptance", "value")]
    names += [f"{norm}.{leaf}" for norm in ("ln1", "ln2") for leaf in ("weight", "bias")]
    first = {f"rwkv.blocks.0.pre_ln.{leaf}" for leaf in ("weight", "bias")}
    outer = {"rwkv.embeddings.weight", "rwkv.ln_out.weight", "rwkv.ln_out.bias", "head.weight"}
    return first | outer | {f"rwkv.blocks.{layer}.{name}" for layer in range(depth) for name in names}


@pytest.mark.parametrize("version", [5, 6])
def test_names_of_the_hub(version, tmp_path):
    source, form = filled(MODELS[version]()), f"hf_rwkv{version}"
    published = export(source, form)
    assert published.keys() == hf_names(version, 2)
    shift = "rwkv.blocks.0.attention." + {5: "time_mix_key", 6: "time_maa_x"}[version]
    assert published[shift].shape == (1, 1, 128)
    torch.save({name: value.clone() for name, value in published.items()}, tmp_path / "a.bin")
    assert to_folder(tmp_path / "a.bin", tmp_path / "ours").format == form
    ours = instantiate(yaml.safe_load((tmp_path / "ours" / "backbone" / "ours.yaml").read_text()))
    assert load(ours, published).format == form
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in source.state_dict().items())


def test_start_states_have_no_name_there():
    for version, form in ((5, "hf_rwkv5"), (6, "hf_rwkv6"), (6, "fla"), (7, "fla")):
        with pytest.raises(WeightsError, match=re.escape("start") + r".* has no name in the format"):
            export(MODELS[version](learned_state=True), form)
