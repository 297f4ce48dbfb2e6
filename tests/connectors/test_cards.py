"""Every connector card keeps the contract of a connector."""

import copy
from functools import cache

import pytest
import torch

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.types import Connector, Layout

CARDS = sorted(path.stem for path in (conf_dir() / "connector").glob("*.yaml"))
IMAGE = Layout(rows=8, cols=8)
SMALL = {
    "QFormer": {"width": 16, "depth": 4, "heads": 2, "ffn": 24},
    "TextQFormer": {"width": 16, "depth": 4, "heads": 2, "ffn": 24, "vocab": 50},
    "Resampler": {"heads": 2},
    "GLU": {"hidden": 40},
    "TransformerProjector": {"heads": 2, "ffn": 24},
    "RWKV7": {"head_size": 8},
}


@cache
def card(name):
    return plain(compose(config=f"connector/{name}"))["connector"]


def shrunk(node):
    """The card with what is large in it made small."""
    if isinstance(node, list):
        return [shrunk(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: shrunk(value) for name, value in node.items()}
    return node | SMALL.get(node.get("_target_", "").rpartition(".")[2], {})


@pytest.fixture(params=CARDS)
def connector(request):
    in_dim, out_dim = (24, 24) if request.param == "identity" else (20, 24)
    connector = instantiate(shrunk(card(request.param)), in_dim, out_dim)
    connector.in_dim = in_dim
    return connector


def test_contract(connector):
    assert isinstance(connector, Connector)
    layout = connector.layout(IMAGE)
    # What stands beside the text has a width of its own.
    assert connector.width == 24 or layout.cross_attention
    tokens = torch.randn(3, IMAGE.tokens, connector.in_dim)
    visual = connector(tokens, IMAGE)
    assert visual.shape == (3, layout.tokens + layout.cross_attention, connector.width)
    assert visual.isfinite().all()


def test_images_do_not_mix(connector):
    connector.eval()
    tokens = torch.randn(3, IMAGE.tokens, connector.in_dim)
    torch.testing.assert_close(connector(tokens, IMAGE)[1:2], connector(tokens[1:2], IMAGE))


def test_gradients_reach_everything(connector):
    for value in connector.parameters():  # a fresh RNN writes nothing: its output matrices are zero
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.1)
    tokens = torch.randn(3, IMAGE.tokens, connector.in_dim, requires_grad=True)
    visual = connector(tokens, IMAGE)
    (visual * torch.randn_like(visual)).sum().backward()
    assert tokens.grad.abs().sum() > 0
    for name, parameter in connector.named_parameters():
        if name.startswith(("token_embedding", "position_embedding", "text_ffns", "lm_")):
            continue  # of the text branch, which no image reaches
        assert parameter.grad is not None, name
        # What is added to every key of a softmax changes nothing.
        assert name.endswith("key.bias") or parameter.grad.abs().sum() > 0, name


def test_copies_and_state_dict(connector):
    connector.eval()
    tokens = torch.randn(2, IMAGE.tokens, connector.in_dim)
    expected = connector(tokens, IMAGE)
    twin = copy.deepcopy(connector)
    torch.testing.assert_close(twin(tokens, IMAGE), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_()
    twin.load_state_dict(connector.state_dict())
    torch.testing.assert_close(twin(tokens, IMAGE), expected)


def test_half_precision(connector):
    connector.to(torch.bfloat16)
    visual = connector(torch.randn(2, IMAGE.tokens, connector.in_dim, dtype=torch.bfloat16), IMAGE)
    assert visual.dtype == torch.bfloat16


@pytest.mark.parametrize("name", CARDS)
def test_published_size(name):
    in_dim, out_dim = (4096, 4096) if name == "identity" else (1408, 4096)
    with torch.device("meta"):
        connector = instantiate(card(name), in_dim, out_dim)
    assert connector.width == out_dim or connector.layout(IMAGE).cross_attention


def test_knob_inside_a_chain():
    """It can be set from the command line."""
    cfg = plain(compose("connector.parts.0.grid=6", config="connector/visualrwkv"))
    assert instantiate(cfg["connector"], 20, 24).layout(Layout(24, 24, suffix=1)).tokens == 37
