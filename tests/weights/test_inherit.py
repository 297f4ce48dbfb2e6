"""A linear RNN inherits of a transformer: attention becomes its mixers, grouped heads repeated, and it is told."""

import pytest
import torch
from torch.nn import functional as F

import mmrnn
from mmrnn.backbones.mixer import MixerInputs
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.model.build import build
from mmrnn.model.start import build_on_meta
from mmrnn.training import LanguageModel
from mmrnn.training.distributed.materialize import materialize
from mmrnn.training.step import TrainStep
from mmrnn.types import Sequence

PARTS = ("model=visualrwkv7_tiny", "encoder=patch_tiny", "connector=linear")
GROUPED = ("backbone=transformer_tiny", "backbone.heads=4", "backbone.kv_heads=2")


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(1)
    model = build(compose(*PARTS, *GROUPED))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    mmrnn.save(model, tmp_path / "teacher")
    return model, f"weights.inherit={tmp_path / 'teacher'}"


def notes(model):
    return "\n".join(model.load_notes)


@torch.no_grad()
def test_without_decay_a_mixer_is_linear_attention_over_the_heads_of_the_teacher(teacher):
    model, inherit = teacher
    student = build(compose(*PARTS, inherit, "backbone.head_size=8"))
    mixer, attention = student.backbone.blocks[0].time_mix, model.backbone.blocks[0].attention
    for name in ("decay", "rate"):  # exp(-sigmoid(decay)) is 1, and nothing is removed
        mixer.get_parameter(name).fill_(-60)
    for name in ("replacement", "bonus"):
        mixer.get_parameter(name).zero_()
    x = torch.randn(2, 9, 32)
    found, *_ = mixer(x, torch.randn(2, 32), torch.zeros(2, 4, 8, 8), None)
    q, k, v = (attention.get_submodule(name)(x).unflatten(-1, (-1, 8)) for name in ("query", "key", "value"))
    k, v = (y.repeat_interleave(2, dim=2) for y in (k, v))  # queries 0 and 1 share the first head, 2 and 3 the second
    weights = torch.einsum("bthk,bshk->bhts", q, k).tril()
    read = torch.einsum("bhts,bshv->bthv", weights, v).flatten(0, 1).flatten(1)
    normed = F.group_norm(read, 4, mixer.norm.weight, mixer.norm.bias, mixer.norm.eps).view(2, 9, -1)
    torch.testing.assert_close(found, attention.output(normed), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("version", [5, 6])
def test_what_fits_is_taken_and_told_and_the_rest_is_as_initialised(teacher, version):
    model, inherit = teacher
    own = (*PARTS, f"backbone=rwkv{version}_tiny", "backbone.head_size=8")
    torch.manual_seed(5)
    fresh = build(compose(*own)).state_dict()
    torch.manual_seed(5)
    student = build(compose(*own, inherit))
    tensors, source = student.state_dict(), model.state_dict()
    block, theirs = "backbone.blocks.1", source["backbone.blocks.1.attention.key.weight"]
    assert torch.equal(tensors[f"{block}.time_mix.receptance.weight"], source[f"{block}.attention.query.weight"])
    assert torch.equal(tensors[f"{block}.time_mix.key.weight"][8:16], theirs[:8])
    assert torch.equal(tensors[f"{block}.norm_channel.weight"], source[f"{block}.norm_mlp.weight"])
    for name in ("backbone.embedding.weight", "backbone.output.weight", "modalities.image.connector.proj.weight"):
        assert torch.equal(tensors[name], source[name])
    for name in ("decay", "bonus", "gate.weight"):
        assert torch.equal(tensors[f"{block}.time_mix.{name}"], fresh[f"{block}.time_mix.{name}"])
    current = 1.0 if version == 5 else 0.0  # weights of the current token, and of the previous one
    assert (tensors[f"{block}.time_mix.lerp_k"] == current).all()
    told = notes(student)
    assert "backbone.blocks.*.attention.query.weight as backbone.blocks.*.time_mix.receptance.weight" in told
    assert "6 tensors of the source fit nothing and were left: backbone.blocks.*.mlp.down.weight" in told
    assert "are as initialised: backbone.blocks.*.norm_in.weight" in told


SHARED = (
    *(*PARTS, "backbone=linear_delta_study", "backbone.width=32", "backbone.depth=2", "backbone.ffn=64"),
    *("backbone.mixers.delta.key_size=8", "backbone.mixers.rwkv7.head_size=8", "backbone.mixers.attention.heads=4"),
)
"""Blocks of Llama with any mixers."""


@torch.no_grad()
def test_blocks_that_keep_their_attention_are_those_of_the_teacher(teacher):
    model, inherit = teacher
    student = build(compose(*SHARED, inherit, "backbone.pattern=[attention]", "backbone.mixers.attention.kv_heads=2"))
    sequence = Sequence(torch.randint(1, 200, (2, 9)))
    expected, _ = model.backbone(sequence)
    found, _ = student.backbone(sequence)
    torch.testing.assert_close(student.head(found), model.head(expected), rtol=1e-5, atol=1e-6)
    assert "as initialised" not in notes(student)
    # With keys of its own for every query it is the same attention, and so are norms whose factor is 1 + weight.
    other = build(compose(*SHARED, inherit, "backbone.pattern=[attention]", "backbone.zero_centered=true"))
    torch.testing.assert_close(other.backbone(sequence)[0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_gated_delta_rule_begins_with_the_projections_of_the_teacher(teacher):
    model, inherit = teacher
    student = build(compose(*SHARED, inherit, "backbone.pattern=[delta,rwkv7]"))
    mixer, attention = student.backbone.blocks[0].mixer, model.backbone.blocks[0].attention
    x = torch.randn(1, 7, 32)
    found, *_ = mixer(x, mixer.state(1), MixerInputs())
    q, k, v = (F.silu(attention.get_submodule(name)(x)).unflatten(-1, (-1, 8)) for name in ("query", "key", "value"))
    q, k = (F.normalize(y, dim=-1) for y in (q, k))
    k, v = (y.repeat_interleave(2, dim=2) for y in (k, v))
    state, read = torch.zeros(1, 4, 8, 8), []
    for t in range(7):
        state = state * 0.999
        written = 0.5 * (v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state))
        state = state + k[:, t, :, :, None] * written[:, :, None]
        read.append(torch.einsum("bhk,bhkv->bhv", q[:, t] * 8**-0.5, state))
    gate = mixer.gate(x).unflatten(-1, (4, 8))
    expected = attention.output(mixer.norm(torch.stack(read, 1), gate).flatten(2))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    time_mix, theirs = student.backbone.blocks[1].mixer.time_mix, model.backbone.blocks[1]
    assert torch.equal(time_mix.receptance.weight, theirs.attention.query.weight)
    assert time_mix.lerp_k.eq(0).all()
    assert torch.equal(student.backbone.blocks[1].mlp.up.weight, theirs.mlp.up.weight)


def test_files_that_weights_name_take_precedence_and_tied_heads_are_filled(tmp_path, teacher):
    _, inherit = teacher
    tied = build(compose(*PARTS, *GROUPED, "backbone.tie_embeddings=true"))
    mmrnn.save(tied, tmp_path / "tied")
    other = build(compose(*PARTS))
    torch.save(other.modalities["image"].connector.state_dict(), tmp_path / "connector.pt")
    torch.save(tied.backbone.state_dict(), tmp_path / "backbone.pt")
    named = f"weights.connector={tmp_path / 'connector.pt'}"
    student = build(compose(*PARTS, "backbone.head_size=8", f"weights.inherit={tmp_path / 'tied'}", named))
    assert torch.equal(student.backbone.output.weight, tied.backbone.embedding.weight)
    assert torch.equal(
        student.modalities["image"].connector.proj.weight, other.modalities["image"].connector.proj.weight
    )
    plain = compose(
        *PARTS, *GROUPED, "backbone.tie_embeddings=true", inherit, f"weights.backbone={tmp_path / 'backbone.pt'}"
    )
    assert torch.equal(build(plain).backbone.embedding.weight, tied.backbone.embedding.weight)


def test_a_model_built_without_memory_inherits_the_same(teacher):
    cfg = compose(*PARTS, "backbone.head_size=8", teacher[1])
    torch.manual_seed(3)
    whole = build(cfg)
    torch.manual_seed(3)
    model, start = build_on_meta(cfg)
    assert model.load_notes == whole.load_notes
    materialize(TrainStep(model, LanguageModel()), start, "cpu")
    tensors = model.state_dict()
    assert all(torch.equal(value, tensors[name]) for name, value in whole.state_dict().items())


def test_what_cannot_be_inherited_is_refused(teacher, tmp_path):
    _, inherit = teacher
    for overrides, message in {
        (inherit,): "4 heads of 8 channels, and the mixer 2 of 16; give it 4 heads of 8 .backbone",
        (inherit, "backbone.depth=3"): "the source has 2 blocks, and the backbone 3; set backbone.depth",
        (f"weights.inherit={tmp_path}",): "holds no model",
    }.items():
        with pytest.raises(ConfigError, match=rf"weights\.inherit: .*{message}"):
            build(compose(*PARTS, *overrides))
    with pytest.raises(ConfigError, match="no such file or folder"):
        build(compose(*PARTS, "weights.inherit=nowhere.at.all/"))
