"""One-token step of examples/export.py: any number of rows, and no operator of this library in the graph.

It is not among the tests of the backbones, which `--shapes` runs: a check of shapes makes each of them a constant.
"""

import pytest
import torch
from torch.export import Dim

from examples.export import Step
from mmrnn.backbones import RWKV5, RWKV6, RWKV7, Transformer


@pytest.mark.parametrize("kind", [RWKV5, RWKV6, RWKV7])
@torch.no_grad()
def test_the_step_of_any_number_of_rows(kind):
    torch.manual_seed(0)
    depth = 2 if kind is RWKV7 else 1  # its second layer reads the values of the first
    backbone = kind(vocab=20, width=32, depth=depth, head_size=16).eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    step, names = Step(backbone), [*backbone.state(1).tensors]
    rows = {0: Dim("rows")}
    given = torch.randn(2, 32), *backbone.state(2).tensors.values()
    program = torch.export.export(step, given, dynamic_shapes=(rows, (rows,) * len(names)))
    assert not [node for node in program.graph.nodes if str(node.target).startswith("mmrnn")]
    exported = program.module()
    for count in (1, 5):
        ours = theirs = backbone.state(count).tensors.values()
        for _ in range(3):
            embeds = torch.randn(count, 32)
            (logits, *ours), (found, *theirs) = step(embeds, *ours), exported(embeds, *theirs)
            torch.testing.assert_close(found, logits, atol=1e-6, rtol=1e-5)
        assert logits.abs().max() > 0.1
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_cache_that_grows_is_refused():
    with pytest.raises(ValueError, match="Transformer has a cache that grows with every token"):
        Step(Transformer(vocab=20, width=32, depth=1, heads=2))
