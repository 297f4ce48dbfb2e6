"""Linear layers with a faster path for CPU inference (no autograd), and ordinary ones everywhere else."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn_kernels.linear import PackedWeight, is_plain_inference, linear


class Linear(nn.Linear):
    """`nn.Linear` that takes the fastest matrix library in CPU inference, without a packed copy of its weight."""

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        """Compute x W^T + b."""
        return linear(x, self.weight, self.bias)


class PackedLinear(nn.Linear):
    """`nn.Linear` with a packed copy of its weight, made at the first call in CPU inference."""

    kept: PackedWeight

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        """Compute x W^T + b."""
        return linear(x, self.weight, self.bias, self.kept)


class PackedAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with packed copies of its two weights, used for self-attention without a mask."""

    kept: tuple[PackedWeight, PackedWeight]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *masks, need_weights: bool = True, **options):
        """Compute attention; arguments and results as in `nn.MultiheadAttention`."""
        set_options = [option for option in (*masks, *options.values()) if option is not None and option is not False]
        one_projection = self.in_proj_weight is not None and self.bias_k is None and not self.add_zero_attn
        self_attention = query is key and key is value and query.dim() == 3 and self.batch_first
        packed = one_projection and self_attention and not (need_weights or set_options or self.training)
        if not packed or not is_plain_inference(query):
            return super().forward(query, key, value, *masks, need_weights=need_weights, **options)
        inner, outer = self.kept
        projected = linear(query, self.in_proj_weight, self.in_proj_bias, inner)
        q, k, v = rearrange(projected, "b t (three h k) -> three b h t k", three=3, h=self.num_heads)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "b h t k -> b t (h k)")
        return linear(out, self.out_proj.weight, self.out_proj.bias, outer), None


def prepack(network: nn.Module) -> None:
    """Replace the classes of linear and attention layers by those that keep packed weights.

    Names, parameters and results stay the same. The first call in CPU inference doubles the memory of the weights; in
    fp32 only on processors where packing is faster (see `mmrnn_kernels.linear`).
    """
    for part in network.modules():
        if type(part) is nn.Linear:
            part.__class__ = PackedLinear
            part.kept = PackedWeight()
        elif type(part) is nn.MultiheadAttention:
            part.__class__ = PackedAttention
            part.kept = (PackedWeight(), PackedWeight())
