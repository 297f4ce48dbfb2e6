"""Blocks recomputed in the backward pass give the values and gradients of blocks that are kept."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmrnn.backbones import GLM, RWKV5, RWKV6, RWKV7, HFDecoder, HFEncoderDecoder, MLPExpert, TinyAttention, Transformer
from mmrnn.backbones.scan import bidirectional
from mmrnn.layers import recompute
from mmrnn.model.vlm import VLM
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence

SIZES = {"vocab": 50, "width": 32}
OWN = {
    "rwkv5": lambda **knobs: RWKV5(**SIZES, depth=5, head_size=16, dropout=0.2, **knobs),
    "rwkv6": lambda **knobs: RWKV6(**SIZES, depth=5, head_size=16, dropout=0.2, **knobs),
    "rwkv7": lambda **knobs: RWKV7(**SIZES, depth=5, head_size=16, dropout=0.2, **knobs),
    "transformer": lambda **knobs: Transformer(**SIZES, depth=5, heads=4, ffn=48, dropout=0.2, **knobs),
    "glm": lambda **knobs: GLM(**SIZES, depth=5, heads=4, ffn=48, **knobs),
}
HF = {
    "opt": {"num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "persimmon": {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48},
    "t5": {"num_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 48},
}


def hf(name, **knobs):
    return (HFEncoderDecoder if name == "t5" else HFDecoder)(name=name, **SIZES, arch=HF[name], **knobs)


def pair(make, every):
    """Two equal models in training mode; the second one recomputes."""
    torch.manual_seed(0)
    plain, saving = make(), make(grad_checkpointing=every)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    saving.load_state_dict(plain.state_dict())
    return plain.train(), saving.train()


def compare(plain, saving, run):
    """Values, gradients and the random state after the backward pass are those of the plain model."""
    results = []
    for model in (plain, saving):
        torch.manual_seed(1)
        hidden = run(model)
        hidden.square().sum().backward()
        grads = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        results.append((hidden.detach(), grads, torch.get_rng_state()))
    (hidden, grads, random), (same, others, after) = results
    assert torch.equal(hidden, same)
    assert torch.equal(random, after)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, atol=1e-6, rtol=1e-5, msg=name)


@pytest.fixture
def recomputed(monkeypatch):
    """Number of blocks that were run under a checkpoint."""
    counted = []
    monkeypatch.setattr(recompute, "checkpoint", lambda *args, **more: counted.append(1) or checkpoint(*args, **more))
    return counted


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("every", "number"), [(1, 5), (2, 3), (9, 1)])
@pytest.mark.parametrize("name", OWN)
def test_own_backbones(name, every, number, packed, recomputed):
    plain, saving = pair(OWN[name], every)
    segments = torch.tensor([[0] * 3 + [1] * 4, [0] * 7]) if packed else None
    ids = torch.randint(0, 50, (2, 7))
    compare(plain, saving, lambda model: model(Sequence(ids, segments=segments))[0])
    assert len(recomputed) == number
    with torch.no_grad():
        saving(Sequence(ids))
    assert len(recomputed) == number


@pytest.mark.parametrize("name", ["rwkv6", "rwkv7"])
@pytest.mark.parametrize("hook", [MLPExpert, TinyAttention])
def test_scans_hooks_and_states(name, hook):
    """The final state has gradients too."""
    torch.manual_seed(0)
    plain, saving = (VLM(model, {}, bidirectional, hook=hook(model)) for model in pair(OWN[name], 2))
    saving.hook.load_state_dict(plain.hook.state_dict())
    ids = torch.randint(0, 50, (2, 12))
    ids[0, 3:9] = SLOT
    sequence = Sequence(ids, (ImageSpan(0, 3, Layout(2, 3)),), embeds=torch.randn(2, 12, 32))

    def run(model):
        hidden, state = model.run_backbone(sequence)
        return torch.cat([hidden, *(layer["wkv"].flatten(1, 2).flatten(1)[:, None, :32] for layer in state.layers)], 1)

    compare(plain, saving, run)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", HF)
def test_models_of_transformers(name, every):
    pytest.importorskip("transformers")
    plain, saving = pair(lambda **knobs: hf(name, **knobs), every)
    ids = torch.randint(1, 50, (2, 7))
    labels = ids.masked_fill(torch.arange(7) < 4, IGNORE)
    compare(plain, saving, lambda model: model(Sequence(ids, labels=labels))[0])
    with pytest.raises(ValueError, match="0 layers for 3"):
        saving(Sequence(ids), saving(Sequence(ids))[1])
    _, state = plain(Sequence(ids))
    with pytest.raises(ValueError, match="set grad_checkpointing=0"):
        saving(Sequence(ids), state)
    saving.eval()
    assert torch.equal(saving(Sequence(ids[:, :2]), state)[0], plain.eval()(Sequence(ids[:, :2]), state)[0])


def test_an_architecture_that_transformers_does_not_recompute():
    pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4}
    with pytest.raises(ValueError, match="recomputes no layers of gpt_neox_japanese"):
        HFDecoder(name="gpt_neox_japanese", **SIZES, arch=sizes, grad_checkpointing=1)


@pytest.mark.parametrize("name", ["transformer", "rwkv6"])
def test_no_tensor_inside_a_block_is_kept(name):
    """Tensors outside of the blocks are saved as before; inputs of a block are not counted here."""
    kept = {}
    for every in (0, 1):
        model = OWN[name](grad_checkpointing=every)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            model(Sequence(torch.randint(0, 50, (1, 64))))
        kept[every] = sum(sizes)
    assert kept[1] < kept[0] / 5


def test_hidden_states_of_a_vlm():
    """Inputs of all blocks are recorded, whether they are recomputed or not."""
    plain, saving = (VLM(model, {}) for model in pair(OWN["transformer"], 1))
    batch = Batch(Sequence(torch.randint(0, 50, (1, 6))))
    compare(plain, saving, lambda model: torch.stack(model(batch, output_hidden_states=True).hidden_states))
