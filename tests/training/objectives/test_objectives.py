"""Losses and their gradients, beside those of the original code."""

from dataclasses import replace

import pytest
import torch

from mmrnn.model.vlm import VLM, Output
from mmrnn.training.objectives.language_model import LanguageModel, l2wrap
from mmrnn.types import IGNORE, Sequence, State


@pytest.fixture
def objective(monkeypatch):
    monkeypatch.setattr(VLM, "head", lambda _, hidden: hidden)
    model = VLM.__new__(VLM)
    torch.nn.Module.__init__(model)

    def run(logits, labels, segments=None, **knobs):
        sequence = labels
        if not isinstance(labels, Sequence):
            sequence = Sequence(labels.clamp(min=0), labels=labels, segments=segments)
        return LanguageModel(**knobs)(model, Output(logits, State(()), sequence))

    return run


@pytest.mark.golden
@pytest.mark.parametrize(("reduction", "name"), [("sample", "sample"), ("token", "batch")])
def test_losses_and_gradients(reduction, name, golden, objective):
    _, tensors = golden("l2wrap")
    for factor, key in ((0.0, "grad_without"), (1e-4, "grad_with")):
        logits = tensors["in/logits"].clone().requires_grad_()
        loss = objective(logits, tensors["in/labels"], reduction=reduction, l2wrap=factor)
        torch.testing.assert_close(loss, tensors[f"out/{name}/loss"], atol=2e-5, rtol=0)
        (grad,) = torch.autograd.grad(loss, logits)
        assert (grad - tensors[f"out/{name}/{key}"]).abs().max() <= 1e-4 * grad.abs().max()


@pytest.mark.golden
def test_the_pull_on_the_largest_logits(golden, objective):
    _, tensors = golden("l2wrap")
    logits = tensors["in/large_logits"].clone().requires_grad_()
    term = l2wrap(logits, 1e-4).mean()
    assert term == 0
    (grad,) = torch.autograd.grad(term, logits)
    torch.testing.assert_close(grad, tensors["out/term_only"])
    # Upstream's term ignores the scale of the loss, so that accumulation does not shrink it; ours follows it.
    logits = tensors["in/logits"].clone().requires_grad_()
    loss = objective(logits, tensors["in/labels"], reduction="sample", l2wrap=1e-4)
    (grad,) = torch.autograd.grad(0.25 * loss, logits)
    torch.testing.assert_close(grad, 0.25 * tensors["out/sample/grad_with"], atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["sample", "token"])
def test_packed_rows_have_the_loss_of_rows_of_their_own(reduction, objective):
    logits, labels = torch.randn(2, 7, 5), torch.randint(0, 5, (2, 7))
    labels[:, :3] = IGNORE
    packed = torch.cat([logits[:1], logits[1:]], 1)
    segments = torch.tensor([[0] * 7 + [1] * 7])
    together = objective(packed, labels.view(1, 14), segments, reduction=reduction)
    torch.testing.assert_close(together, objective(logits, labels, reduction=reduction))


def test_sample_mean_does_not_depend_on_how_a_batch_is_split(objective):
    logits, labels = torch.randn(4, 6, 5), torch.randint(0, 5, (4, 6))
    labels[0, :5] = IGNORE
    whole = objective(logits, labels)
    parts = torch.stack([objective(logits[i : i + 2], labels[i : i + 2]) for i in (0, 2)]).mean()
    torch.testing.assert_close(whole, parts)


def test_nothing_to_learn_gives_zero_and_not_nan(objective):
    logits = torch.randn(2, 4, 5, requires_grad=True)
    labels = torch.full((2, 4), IGNORE)
    for reduction in ("sample", "token"):
        loss = objective(logits, labels, reduction=reduction)
        assert loss == 0
        loss.backward()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reduction", ["sample", "token"])
def test_the_losses_of_slices_add_up(reduction, packed, objective):
    """Targets across a cut are counted, and the pull on the largest logits is that of the whole."""
    logits, labels = torch.randn(2, 9, 5, requires_grad=True), torch.randint(0, 5, (2, 9))
    labels[0, :6], labels[1, 4] = IGNORE, IGNORE
    segments = torch.tensor([[0] * 9, [0] * 4 + [1] * 5]) if packed else None
    whole = Sequence(labels.clamp(min=0), labels=labels, segments=segments)
    knobs = {"reduction": reduction, "l2wrap": 0.1}
    loss = objective(logits, whole, **knobs)
    weighted = replace(whole, loss_weights=LanguageModel(**knobs).target_weights(whole))
    parts = [(0, 4), (4, 5), (5, 9)]
    summed = sum(objective(logits[:, start:stop], weighted.slice(start, stop), **knobs) for start, stop in parts)
    torch.testing.assert_close(summed, loss)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (summed, loss)))
