"""Linear layers that are fast on a CPU where nothing but numbers is asked for, and ordinary ones everywhere else."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn_kernels.linear import Pack, linear, plain_mode


class Linear(nn.Linear):
    """`nn.Linear`, whose product without gradients on a CPU is made by the fastest library; nothing is kept."""

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        return linear(x, self.weight, self.bias)


class PackedLinear(nn.Linear):
    """`nn.Linear` that keeps a packed copy of its weight from the first product without gradients on a CPU on."""

    kept: Pack

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        return linear(x, self.weight, self.bias, self.kept)


class PackedAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with packed copies of its two weights, where it is plain self-attention."""

    kept: tuple[Pack, Pack]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *masks, need_weights: bool = True, **options):
        asked = [option for option in (*masks, *options.values()) if option is not None and option is not False]
        own = self.in_proj_weight is not None and self.bias_k is None and not self.add_zero_attn
        one = query is key and key is value and query.dim() == 3 and self.batch_first
        if need_weights or asked or not own or not one or self.training or not plain_mode(query):
            return super().forward(query, key, value, *masks, need_weights=need_weights, **options)
        inner, outer = self.kept
        mixed = linear(query, self.in_proj_weight, self.in_proj_bias, inner)
        q, k, v = rearrange(mixed, "b t (three h k) -> three b h t k", three=3, h=self.num_heads)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "b h t k -> b t (h k)")
        return linear(out, self.out_proj.weight, self.out_proj.bias, outer), None


def prepack(network: nn.Module) -> None:
    """Make the linear layers and the attentions of a network such that keep packed copies, where that is faster.

    Names, parameters and numbers stay as they are. From its first use without gradients on a CPU on the network takes
    the memory of its weights twice; in fp32 only on processors on which it gains anything (`mmrnn_kernels.linear`).
    """
    for part in network.modules():
        if type(part) is nn.Linear:
            part.__class__ = PackedLinear
            part.kept = Pack()
        elif type(part) is nn.MultiheadAttention:
            part.__class__ = PackedAttention
            part.kept = (Pack(), Pack())
