"""Losses over chunks of positions: values, gradients and memory, beside the whole logits."""

import weakref

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmrnn.backbones import RWKV6, Transformer
from mmrnn.model.vlm import VLM
from mmrnn.training import LanguageModel
from mmrnn.training.objectives.chunks import map_chunks
from mmrnn.training.objectives.language_model import L2Wrap
from mmrnn.types import IGNORE, Output, Sequence, State

VOCAB, WIDTH = 97, 16


def rwkv():
    return RWKV6(vocab=VOCAB, width=WIDTH, depth=1, head_size=8, mix_rank=4, decay_rank=4)


def tied():
    return Transformer(vocab=VOCAB, width=WIDTH, depth=1, heads=2, ffn=16, tie_embeddings=True)


def low_rank():
    made = inject_adapter_in_model(LoraConfig(r=2, target_modules=["output"], init_lora_weights=False), rwkv())
    assert any("output.lora_A" in name for name, _ in made.named_parameters())
    return made


def model_of(backbone):
    torch.manual_seed(0)
    made = VLM(backbone(), {})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def given():
    """Hidden states and a sequence of two samples and padding, a third of the positions without a target."""
    torch.manual_seed(1)
    ids = torch.randint(0, VOCAB, (2, 40))
    padding = torch.zeros(2, 40, dtype=torch.bool)
    padding[0, 25:] = True
    labels = ids.masked_fill(padding | (torch.rand(2, 40) < 0.33), IGNORE)
    return torch.randn(2, 40, WIDTH, requires_grad=True), Sequence(ids, labels=labels, padding=padding)


def plain_loss(model, hidden, sequence, reduction, pull, z_loss):
    """The formulas over all logits at once."""
    logits = model.head(hidden).float()
    shifted, targets = logits[:, :-1], sequence.labels[:, 1:]
    known = targets != IGNORE
    losses = F.cross_entropy(shifted.transpose(1, 2), targets, reduction="none")
    losses = losses + z_loss * torch.logsumexp(shifted, -1) ** 2 * known
    loss = losses.sum() / known.sum() if reduction == "token" else (losses.sum(1) / known.sum(1)).mean()
    largest = 0.5 * pull * (logits.amax(-1)[~sequence.padding] ** 2).mean()
    return loss + largest - largest.detach()


def with_gradients(model, hidden, loss):
    inputs = [hidden, *(one for one in model.parameters() if one.requires_grad)]
    return loss, *(grad for grad in torch.autograd.grad(loss, inputs, allow_unused=True) if grad is not None)


@pytest.mark.parametrize("backbone", [rwkv, tied, low_rank])
@pytest.mark.parametrize("reduction", ["sample", "token"])
def test_chunks_have_the_loss_and_the_gradients_of_whole_logits(backbone, reduction):
    model, (hidden, sequence) = model_of(backbone), given()
    expected = with_gradients(model, hidden, plain_loss(model, hidden, sequence, reduction, 0.1, 0.01))
    for chunk_size in (7, 13, 1024):
        objective = LanguageModel(reduction=reduction, l2wrap=0.1, z_loss=0.01, chunk_size=chunk_size)
        found = with_gradients(model, hidden, objective(model, Output(hidden, State(()), sequence)))
        assert len(found) == len(expected) > 2
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_terms_of_their_own_have_the_losses_of_one_pass():
    model, (hidden, sequence) = model_of(rwkv), given()
    objective, output = LanguageModel(l2wrap=0.1, chunk_size=7), Output(hidden, State(()), sequence)
    assert [type(term) for _, term in objective.terms()] == [LanguageModel, L2Wrap]
    for number, (_, term) in enumerate(objective.terms()):
        alone = with_gradients(model, hidden, term(model, output))
        together = with_gradients(model, hidden, objective.losses(model, output)[number])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_chunks_under_autocast_add_up_their_gradients_in_fp32():
    """The gradient of the head is at least as close to that of fp64 as that of whole logits under autocast."""
    torch.manual_seed(0)
    head, hidden = nn.Linear(WIDTH, VOCAB, bias=False), torch.randn(2048, WIDTH)
    targets = torch.randint(0, VOCAB, (2048,))

    def losses(hidden, targets):
        return F.cross_entropy(head(hidden).float(), targets, reduction="none")[None]

    exact = torch.autograd.grad(F.cross_entropy(hidden.double() @ (w := head.weight.double()).T, targets), w)[0]
    errors = {}
    for chunk_size in (16, 2048):
        with torch.autocast("cpu", torch.bfloat16):
            loss = map_chunks(losses, chunk_size, hidden, targets).mean()
        (grad,) = torch.autograd.grad(loss, head.weight)
        assert grad.dtype == torch.float32
        errors[chunk_size] = (grad - exact).norm() / exact.norm()
    assert errors[2048] < 1e-2
    assert errors[16] < 1.2 * errors[2048]


def test_dropout_is_drawn_once():
    """The second pass over a chunk has the random numbers of the first."""

    def dropped(x):
        return F.dropout(x, 0.5).sum(1)[None]

    x = torch.ones(30, 8, requires_grad=True)
    values = map_chunks(dropped, 7, x)
    (grad,) = torch.autograd.grad(values.sum(), x)
    torch.testing.assert_close((grad * x).sum(1)[None], values)


def test_without_a_position_the_head_has_a_gradient():
    """So that processes of one run reduce the gradients of the same parameters."""
    model, (hidden, sequence) = model_of(rwkv), given()
    nothing = Sequence(sequence.ids, labels=torch.full_like(sequence.ids, IGNORE))
    empty = Sequence(sequence.ids, labels=nothing.labels, padding=torch.ones_like(sequence.padding))
    for one in (nothing, empty):
        for pull in (0.0, 0.1):
            loss = LanguageModel(l2wrap=pull)(model, Output(hidden, State(()), one))
            assert loss == 0
            (grad,) = torch.autograd.grad(loss, model.backbone.output.weight)
            assert (grad.abs().max() > 0) == (bool(pull) and one is nothing)
    assert LanguageModel().num_units(type("", (), {"sequence": empty})) == 0


class PeakMemory(TorchDispatchMode):
    """The most bytes of tensors, made inside, that were alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self.known:
                self.known.add(storage)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return result

    def free(self, size):
        self.alive -= size


@pytest.mark.parametrize("knobs", [{}, {"l2wrap": 0.1, "z_loss": 0.01}], ids=["plain", "wrapped"])
def test_memory_holds_the_logits_of_one_chunk(knobs):
    vocab, width, chunk = 2048, 8, 64
    head = nn.Linear(width, vocab, bias=False)

    class Headed:
        def head(self, hidden):
            return head(hidden)

    def peak(positions, chunk_size):
        torch.manual_seed(0)
        hidden, ids = torch.randn(1, positions, width, requires_grad=True), torch.randint(0, vocab, (1, positions))
        sequence = Sequence(ids, labels=ids)
        with PeakMemory() as memory:
            LanguageModel(chunk_size=chunk_size, **knobs)(Headed(), Output(hidden, State(()), sequence)).backward()
        return memory.peak

    whole, short, long = peak(1024, 1024), peak(256, chunk), peak(1024, chunk)
    logits = 4 * vocab
    assert whole > 2 * 1024 * logits
    assert long < 7 * chunk * logits + 4 * head.weight.nbytes
    assert long - short < 0.1 * (1024 - 256) * logits
