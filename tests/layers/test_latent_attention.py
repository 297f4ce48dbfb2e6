"""Cross-attention beside torch's own multi-head attention."""

import torch
from torch import nn

from mmrnn.layers.latent_attention import LatentAttention, multi_head_attention


def test_it_equals_the_attention_of_torch():
    attention = LatentAttention(24, 16, heads=3, head_size=8, bias=True)
    peer = nn.MultiheadAttention(24, 3, bias=True, batch_first=True, kdim=16, vdim=16).eval()
    key, value = attention.kv.weight.chunk(2)
    weights = {"q_proj_weight": attention.query.weight, "k_proj_weight": key, "v_proj_weight": value}
    weights |= {f"out_proj.{name}": tensor for name, tensor in attention.output.state_dict().items()}
    peer.load_state_dict(weights | {"in_proj_bias": torch.zeros(72)})
    x, source = torch.randn(2, 5, 24), torch.randn(2, 7, 16)
    mask = torch.rand(5, 7) < 0.7
    mask[:, 0] = True
    torch.testing.assert_close(attention.attend(x, source), peer(x, source, source)[0])
    expected = peer(x, source, source, attn_mask=~mask)[0]
    torch.testing.assert_close(attention.attend(x, source, mask[None, None]), expected)


def test_scores_can_be_scaled():
    x = torch.randn(2, 5, 12)
    zero = multi_head_attention(x, x, x, 3, scale=0.0)
    torch.testing.assert_close(zero, x.mean(1, keepdim=True).expand_as(x))
