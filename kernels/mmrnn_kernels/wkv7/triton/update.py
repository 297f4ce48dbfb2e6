"""Update of the state by one position, for the recurrent kernels."""

import triton


@triton.jit
def update_state(b_s, b_keep, b_change, b_b, b_x, b_k, b_v):
    """Equation (2); `b_x` is u, what the state holds at a, `keep` and `change` are `decay_terms`."""
    # [BK, BV]
    return b_s * b_keep[:, None] + (b_s * b_change[:, None] + b_b[:, None] * b_x[None, :] + b_k[:, None] * b_v[None, :])
