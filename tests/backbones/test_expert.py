"""Visual experts: each position goes through its own weights, and a GPU is waited for once a forward pass."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmrnn.backbones import RWKV6, MLPExpert, Transformer, VisualExpert, scan
from mmrnn.backbones.route import route
from mmrnn.model.vlm import VLM
from mmrnn.types import SLOT, ImageSpan, Layout, Routing, Sequence

WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class CountWaits(TorchDispatchMode):
    """Counts the operators whose result has a size or a value that the processor has to know."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        masks = operator is torch.ops.aten.index.Tensor and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        self.count += masks or operator in WAITS
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_each_position_goes_through_its_own_module(share):
    where = torch.rand(3, 7) < share
    base, expert = nn.Linear(4, 5), nn.Linear(4, 5)
    x = torch.randn(3, 7, 4)
    expected = torch.where(where[..., None], expert(x), base(x))
    torch.testing.assert_close(route(Routing.of(where), base, expert, x), expected)
    order = torch.rand(3, 7).argsort(dim=1)
    moved = route(Routing.of(where).permuted(order), base, expert, x.gather(1, order[..., None].expand_as(x)))
    torch.testing.assert_close(moved, expected.gather(1, order[..., None].expand_as(expected)))


@pytest.mark.parametrize("kind", ["rwkv", "rwkv, scanned", "transformer"])
@torch.no_grad()
def test_a_pass_waits_as_often_for_many_layers_as_for_one(kind):
    counts = []
    for depth in (1, 5):
        if kind == "transformer":
            backbone = Transformer(vocab=50, width=32, depth=depth, heads=2, ffn=48)
        else:
            backbone = RWKV6(vocab=50, width=32, depth=depth, head_size=16)
        hook = (VisualExpert if kind == "transformer" else MLPExpert)(backbone)
        model = VLM(backbone, {}, scan.spiral if "scanned" in kind else None, hook=hook).eval()
        ids = torch.randint(1, 50, (2, 9))
        embeds, ids[0, 2:8] = backbone.embed(ids), SLOT
        sequence = Sequence(ids, (ImageSpan(0, 2, Layout(2, 3)),), embeds=embeds)
        with CountWaits() as waits:
            model.run_backbone(sequence)
        counts.append(waits.count)
    assert counts[0] == counts[1] <= 2


@pytest.mark.parametrize("tokens", [1, 9])
@torch.no_grad()
def test_rows_with_no_position_for_one_of_both(tokens):
    """An image of one token, which counts as text; and an operator that refuses empty inputs."""
    backbone = RWKV6(vocab=50, width=32, depth=2, head_size=16)
    model = VLM(backbone, {}, hook=MLPExpert(backbone)).eval()
    ids = torch.randint(1, 50, (1, 9))
    embeds, ids[0, :tokens] = backbone.embed(ids), SLOT
    hidden, _ = model.run_backbone(Sequence(ids, (ImageSpan(0, 0, Layout(1, tokens)),), embeds=embeds))
    # The experts are copies of the blocks' own.
    torch.testing.assert_close(hidden, backbone(Sequence(ids, embeds=embeds))[0])
