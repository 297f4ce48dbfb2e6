"""Operators of linear RNNs: each has a reference after the paper and faster implementations of the same function.

Letters: `b` samples, `t` positions, `h` heads, `k` key size, `v` value size, `n` states (one a sample, or one a segment
of a packed row), `d` channels, `s` states of a channel.
"""

from .common.segments import Segments
from .delta import gated_delta_rule, kda
from .elementwise import lerp, norm_gate, relu_square, sigmoid_gate, token_shift
from .selective_scan import selective_scan
from .wkv5 import wkv5
from .wkv6 import wkv6
from .wkv7 import wkv7

__all__ = [
    "Segments",
    "gated_delta_rule",
    "kda",
    "lerp",
    "norm_gate",
    "relu_square",
    "selective_scan",
    "sigmoid_gate",
    "token_shift",
    "wkv5",
    "wkv6",
    "wkv7",
]
