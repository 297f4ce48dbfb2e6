"""Numbers of parameters of the published connectors (their papers, or counted in their code)."""

from functools import partial

import pytest
import torch

from mmrnn.connectors import MLP, GatedLinear, GatedMLP, Linear, Merge, QFormer, Sequential
from mmrnn.types import Layout

STRIP = partial(Merge, rows=1, cols=4)
DOWNSAMPLE = (Merge, partial(MLP, norm=True))


@pytest.mark.parametrize(
    ("part", "in_dim", "out_dim", "count"),
    [
        pytest.param(Linear, 1024, 4096, 4_198_400, id="llava-7b"),
        pytest.param(Linear, 1024, 5120, 5_248_000, id="llava-13b"),
        pytest.param(partial(Linear, bias=False), 1024, 2048, 2_097_152, id="visualrwkv-1b6"),
        pytest.param(MLP, 1024, 4096, 20_979_712, id="llava15-7b"),
        pytest.param(MLP, 1024, 5120, 31_467_520, id="llava15-13b"),
        pytest.param(QFormer, 1408, None, 105_162_240, id="qformer-eva-g"),
        pytest.param(QFormer, 1024, None, 101_623_296, id="qformer-clip-l"),
        pytest.param(QFormer, 1408, 2560, 105_162_240 + 1_968_640, id="blip2-opt-2b7"),
        pytest.param(partial(Sequential, parts=[QFormer, Linear]), 1408, 4096, 105_162_240 + 3_149_824, id="minigpt4"),
        pytest.param(partial(Sequential, parts=[STRIP, Linear]), 1408, 4096, 23_072_768, id="minigpt-v2"),
        pytest.param(partial(Sequential, parts=DOWNSAMPLE), 1152, 2560, 18_364_416, id="vila15-3b"),
        pytest.param(partial(Sequential, parts=DOWNSAMPLE), 1152, 4096, 35_668_992, id="vila15-8b"),
        pytest.param(partial(Sequential, parts=DOWNSAMPLE), 3200, 7168, 143_170_560, id="vila15-40b"),
        pytest.param(GatedMLP, 3200, 2048, 3200 * 2048 + 2 * 2048**2, id="visualrwkv-hd"),
        pytest.param(GatedLinear, 3200, 2048, 3200**2 + 3200 * 2048 + 2 * 2048, id="visualrwkv-7"),
    ],
)
def test_count(part, in_dim, out_dim, count):
    with torch.device("meta"):
        built = part(in_dim, out_dim)
    assert sum(parameter.numel() for parameter in built.parameters()) == count


@pytest.mark.parametrize(
    ("part", "in_dim", "side", "tokens"),
    [
        pytest.param(Linear, 1024, 24, 576, id="llava15"),
        pytest.param(partial(QFormer, width=8, depth=1, heads=1, ffn=8), 1408, 16, 32, id="blip2"),
        pytest.param(STRIP, 1408, 32, 256, id="minigpt-v2"),
        pytest.param(Merge, 1152, 27, 196, id="vila15"),
        pytest.param(Merge, 3200, 32, 256, id="vila15-40b"),
    ],
)
def test_visual_tokens(part, in_dim, side, tokens):
    assert part(in_dim).layout(Layout(side, side)).tokens == tokens
