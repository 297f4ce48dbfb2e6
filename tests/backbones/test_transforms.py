"""Forward-mode derivatives of whole models: a prompt, and one token from a state without gradients."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import jvp, vmap

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.types import Sequence

MODELS = {"rwkv5": RWKV5, "rwkv6": RWKV6, "rwkv7": RWKV7}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param](vocab=20, width=32, depth=2, head_size=16, grad_checkpointing=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def hidden(model, state=None):
    return lambda embeds: model(Sequence(torch.zeros(embeds.shape[:2], dtype=torch.long), embeds=embeds), state)[0]


def difference(function, x, direction, step=1e-6):
    return (function(x + step * direction) - function(x - step * direction)).detach() / (2 * step)


def close(found, truth):
    assert (found.detach() - truth).abs().max() <= 1e-4 * truth.abs().max()


def test_of_a_prompt(model):
    embeds, direction = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    found = jvp(hidden(model), (embeds,), (direction,))[1]
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(hidden(model)(forward_ad.make_dual(embeds, direction))).tangent
    many = vmap(hidden(model))(torch.stack([embeds, direction]))
    close(many, torch.stack([hidden(model)(embeds), hidden(model)(direction)]).detach())
    truth = difference(hidden(model.double()), embeds.double(), direction.double())
    close(found, truth)
    close(dual, truth)


@torch.no_grad()
def test_of_one_token_and_of_its_state(model):
    token, direction = torch.randn(2, 1, 32), torch.randn(2, 1, 32)
    _, state = model(Sequence(torch.randint(20, (2, 4))))
    found = jvp(hidden(model, state), (token,), (direction,))[1]
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(hidden(model, state)(forward_ad.make_dual(token, direction))).tangent
        moved = state.map(lambda x: forward_ad.make_dual(x, x))
        of_state = forward_ad.unpack_dual(hidden(model, moved)(token)).tangent
    model, state, token = model.double(), state.map(torch.Tensor.double), token.double()
    truth = difference(hidden(model, state), token, direction.double())
    close(found, truth)
    close(dual, truth)

    def of(scale):
        return hidden(model, state.map(lambda x: x * scale))(token)

    close(of_state, difference(of, torch.ones(()).double(), 1.0))
