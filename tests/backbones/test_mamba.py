"""Mamba against transformers' own code (golden `mamba_hf`), and its scans."""

import pytest
import torch
from torch.nn import functional as F

from mmrnn import weights
from mmrnn.backbones import Mamba
from mmrnn.types import Sequence
from mmrnn.weights.export import export


@pytest.fixture
def case(golden, params):
    meta, tensors = golden("mamba_hf")
    config = meta["config"]
    sizes = {"vocab": config["vocab"], "width": config["width"], "depth": config["layers"], "rank": config["rank"]}
    model = Mamba(**sizes, state_size=config["state"], tie_embeddings=config["tied"])
    return model, tensors, params(tensors)


def close(found, truth, limit):
    torch.testing.assert_close(found, truth, atol=limit, rtol=0)


@pytest.mark.golden
def test_logits_loss_states_and_gradients(case, params):
    model, tensors, published = case
    assert weights.load(model, published).format == "mamba_hf"
    hidden, state = model(Sequence(tensors["in/ids"]))
    logits = model.head(hidden)
    close(logits, tensors["out/logits"], 2e-4)
    for layer, found in enumerate(state.layers):
        close(found["conv"], tensors[f"out/state/{layer}/conv"][..., -3:], 3e-4)
        close(found["ssm"], tensors[f"out/state/{layer}/ssm"], 3e-4)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tensors["in/labels"][:, 1:].flatten())
    close(loss, tensors["out/loss"], 2e-5)
    loss.backward()
    expected = weights.convert(model, params(tensors, "grad/"), format="mamba_hf")
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert expected.keys() == grads.keys()
    for name, value in expected.items():
        assert (grads[name] - value).abs().max() <= 1e-4 * value.abs().max(), name


@pytest.mark.golden
def test_the_mixer_and_left_padding(case):
    model, tensors, published = case
    weights.load(model, published)
    mixer = model.blocks[0].mixer
    x = tensors["in/mixer_x"]
    close(mixer(x, mixer.state(len(x)))[0], tensors["out/mixer_y"], 1e-4)
    mask = tensors["in/left_mask"].bool()
    row = next(row for row in range(len(mask)) if not mask[row].all())
    real = mask[row]
    ids, segments = tensors["in/ids"][row : row + 1], real.long()[None]
    hidden, _ = model(Sequence(ids, segments=segments))
    theirs = tensors["out/left_logits"]
    close(model.head(hidden)[0, real], theirs[row if len(theirs) > 1 else 0, real], 2e-4)


def test_published_names_both_ways():
    model = Mamba(vocab=50, width=16, depth=2, state_size=4, tie_embeddings=False)
    for format, embedding in (("mamba", "embedding"), ("mamba_hf", "embeddings")):
        published = export(model, format)
        assert f"backbone.{embedding}.weight" in published
        assert published["backbone.layers.1.mixer.in_proj.weight"].shape == (64, 16)
        other = Mamba(vocab=50, width=16, depth=2, state_size=4, tie_embeddings=False)
        assert weights.load(other, published).format == format
        ours, theirs = model.state_dict(), other.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
