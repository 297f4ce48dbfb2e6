"""The scan position by position with the states of a block of channels in registers, forwards and backwards."""

import triton
import triton.language as tl

from ...common.triton.primitives import exact_exp, first_slot, sequence_bounds


@triton.jit
def scan_decay(b_z):
    """Compute `keep` and `change`, whose sum is the decay exp(z), z <= 0.

    For a decay near one `s * keep + s * change` is s plus its loss: so products are rounded and not the decay, whose
    rounding error would add up where it is the same at every position.
    """
    b_z = tl.where(b_z < -104.0, -104.0, b_z)  # below it the decay is exactly 0, and NaN stays
    m_near = b_z > -0.5
    b_series = 1 + b_z * (1 / 6) * (1 + b_z * (1 / 7))
    b_series = 1 + b_z * (1 / 4) * (1 + b_z * (1 / 5) * b_series)
    b_series = 1 + b_z * (1 / 2) * (1 + b_z * (1 / 3) * b_series)
    return tl.where(m_near, 1.0, 0.0), tl.where(m_near, b_z * b_series, exact_exp(b_z))


@triton.jit
def load_channels(x, i_row, o_d, m_d, D):
    """Load channels o_d of row i_row in fp32; those that there are not are 0, a decay of one without a write."""
    return tl.load(x + i_row * D + o_d, mask=m_d, other=0.0).to(tl.float32)


@triton.jit
def load_states(x, i_row, o_s, m_row, S: tl.constexpr):
    """Load what all channels write or read at row i_row, in fp32, or 0 if m_row is false."""
    return tl.load(x + i_row * S + o_s, mask=m_row, other=0.0).to(tl.float32)


@triton.jit
def forward_kernel(
    x,
    dt,
    a,
    b,
    c,
    start,
    out,
    end,
    checkpoints,
    cu_seqlens,
    length,
    D,
    S: tl.constexpr,
    BD: tl.constexpr,
    SPAN: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_START: tl.constexpr,
    STORE_STATES: tl.constexpr,
):
    """Compute (1) and (2). Grid: (sequences, blocks of BD channels).

    With STORE_STATES neither `out` nor `end` is stored, but the state before every SPAN positions in `checkpoints`.
    """
    i_n = tl.program_id(0)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    o_s = tl.arange(0, S)
    m_d = o_d < D
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [BD, S]
    o_tile = o_d[:, None] * S + o_s[None, :]
    o_state = i_n.to(tl.int64) * D * S + o_tile
    b_a = tl.load(a + o_tile, mask=m_d[:, None], other=0.0)
    b_s = tl.zeros([BD, S], dtype=tl.float32)
    if HAS_START:
        b_s = tl.load(start + o_state, mask=m_d[:, None], other=0.0)
    if STORE_STATES:
        checkpoints += first_slot(bos, SPAN, i_n) * D * S
    for i_t in range(0, (eos - bos).to(tl.int32)):
        if STORE_STATES:  # a condition of its own, since this one is decided at compile time
            if i_t % SPAN == 0:
                tl.store(checkpoints + o_tile, b_s, mask=m_d[:, None])
                checkpoints += D * S
        i_row = bos + i_t
        # [BD], [BD], [S]
        b_dt = load_channels(dt, i_row, o_d, m_d, D)
        b_x = load_channels(x, i_row, o_d, m_d, D)
        b_b = load_states(b, i_row, o_s, True, S)
        b_keep, b_change = scan_decay(b_dt[:, None] * b_a)
        b_s = b_s * b_keep + (b_s * b_change + (b_dt * b_x)[:, None] * b_b[None, :])
        if not STORE_STATES:
            b_c = load_states(c, i_row, o_s, True, S)
            b_y = tl.sum(b_s * b_c[None, :], 1)
            tl.store(out + i_row * D + o_d, b_y.to(out.dtype.element_ty), mask=m_d)
    if not STORE_STATES:
        tl.store(end + o_state, b_s, mask=m_d[:, None])


@triton.jit
def recompute_states(
    b_s, x, dt, b, b_a, bos, i_t, T, o_d, o_s, m_d, D, S: tl.constexpr, BT: tl.constexpr, SPAN: tl.constexpr
):
    """Compute the states before each of BT positions from i_t on and after the last, from that at the checkpoint."""
    for i in range(i_t // SPAN * SPAN, i_t):
        b_dt = load_channels(dt, bos + i, o_d, m_d, D)
        b_x = load_channels(x, bos + i, o_d, m_d, D)
        b_b = load_states(b, bos + i, o_s, True, S)
        b_keep, b_change = scan_decay(b_dt[:, None] * b_a)
        b_s = b_s * b_keep + (b_s * b_change + (b_dt * b_x)[:, None] * b_b[None, :])
    b_states = (b_s,)
    for j in tl.static_range(BT):
        m_row = i_t + j < T
        b_dt = load_channels(dt, bos + i_t + j, o_d, m_d & m_row, D)
        b_x = load_channels(x, bos + i_t + j, o_d, m_d & m_row, D)
        b_b = load_states(b, bos + i_t + j, o_s, m_row, S)
        b_keep, b_change = scan_decay(b_dt[:, None] * b_a)
        b_s = b_s * b_keep + (b_s * b_change + (b_dt * b_x)[:, None] * b_b[None, :])
        b_states += (b_s,)
    return b_states


@triton.jit
def run_backwards(
    b_ds,
    b_da,
    b_states,
    b_a,
    x,
    dt,
    b,
    c,
    dout,
    dx,
    ddt,
    db,
    dc,
    bos,
    i_t,
    T,
    o_d,
    o_s,
    m_d,
    D,
    S: tl.constexpr,
    BT: tl.constexpr,
):
    """Compute G before BT positions from i_t on, (3), and their gradients, (4) to (6)."""
    for j in tl.static_range(BT):
        i = i_t + BT - 1 - j
        m_row = i < T
        m_here = m_d & m_row
        i_row = bos + i
        # [BD], [BD], [BD], [S], [S]
        b_dt = load_channels(dt, i_row, o_d, m_here, D)
        b_x = load_channels(x, i_row, o_d, m_here, D)
        b_do = load_channels(dout, i_row, o_d, m_here, D)
        b_b = load_states(b, i_row, o_s, m_row, S)
        b_c = load_states(c, i_row, o_s, m_row, S)
        b_keep, b_change = scan_decay(b_dt[:, None] * b_a)
        tl.store(dc + i_row * S + o_s, tl.sum(b_do[:, None] * b_states[BT - j], 0), mask=m_row)
        b_ds += b_do[:, None] * b_c[None, :]
        tl.store(db + i_row * S + o_s, tl.sum((b_dt * b_x)[:, None] * b_ds, 0), mask=m_row)
        b_written = tl.sum(b_ds * b_b[None, :], 1)
        b_decayed = b_states[BT - 1 - j] * (b_keep + b_change) * b_ds
        b_da += b_decayed * b_dt[:, None]
        b_ddt = b_x * b_written + tl.sum(b_decayed * b_a, 1)
        tl.store(dx + i_row * D + o_d, (b_dt * b_written).to(dx.dtype.element_ty), mask=m_here)
        tl.store(ddt + i_row * D + o_d, b_ddt.to(ddt.dtype.element_ty), mask=m_here)
        b_ds = b_ds * b_keep + b_ds * b_change
    return b_ds, b_da


@triton.jit
def backward_kernel(
    x,
    dt,
    a,
    b,
    c,
    dout,
    dend,
    checkpoints,
    dx,
    ddt,
    da,
    db,
    dc,
    dstart,
    cu_seqlens,
    length,
    positions,
    D,
    S: tl.constexpr,
    BD: tl.constexpr,
    BT: tl.constexpr,
    SPAN: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_DEND: tl.constexpr,
):
    """Compute (3) to (6). Grid: (sequences, blocks of BD channels).

    `checkpoints` has the state before every SPAN positions. From there it is computed again up to BT positions, where
    the states wait in registers for G, which runs backwards. `da` has one sum a sequence, `db` and `dc` one a block.
    """
    i_n, i_d = tl.program_id(0), tl.program_id(1)
    o_d = i_d * BD + tl.arange(0, BD)
    o_s = tl.arange(0, S)
    m_d = o_d < D
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [BD, S]
    o_tile = o_d[:, None] * S + o_s[None, :]
    o_state = i_n.to(tl.int64) * D * S + o_tile
    b_a = tl.load(a + o_tile, mask=m_d[:, None], other=0.0)
    b_da = tl.zeros([BD, S], dtype=tl.float32)
    b_ds = tl.zeros([BD, S], dtype=tl.float32)
    if HAS_DEND:
        b_ds = tl.load(dend + o_state, mask=m_d[:, None], other=0.0)
    T = (eos - bos).to(tl.int32)
    blocks = tl.cdiv(T, BT)
    checkpoints += first_slot(bos, SPAN, i_n) * D * S
    db += i_d.to(tl.int64) * positions * S
    dc += i_d.to(tl.int64) * positions * S
    for i in range(0, blocks):
        i_t = (blocks - 1 - i) * BT
        b_s = tl.load(checkpoints + (i_t // SPAN).to(tl.int64) * (D * S) + o_tile, mask=m_d[:, None], other=0.0)
        b_states = recompute_states(b_s, x, dt, b, b_a, bos, i_t, T, o_d, o_s, m_d, D, S, BT, SPAN)
        b_ds, b_da = run_backwards(
            *(b_ds, b_da, b_states, b_a, x, dt, b, c, dout, dx, ddt, db, dc, bos, i_t, T, o_d, o_s, m_d, D, S, BT)
        )
    tl.store(da + o_state, b_da, mask=m_d[:, None])
    tl.store(dstart + o_state, b_ds, mask=m_d[:, None])
