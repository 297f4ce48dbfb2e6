import inspect

import pytest
import torch

from mmrnn_kernels import wkv5, wkv6

OPS = {"wkv5": wkv5, "wkv6": wkv6}
PACKINGS = {
    "even": (20, 20, 20),
    "uneven": (1, 130, 3, 1, 2, 64, 65),
    "ones": (1, 1, 1),
    "single": (33,),
    "empty": (0, 5, 0, 1),
}


def one_by_one(op, lengths, backend):
    """Every segment by itself."""

    def split(r, k, v, w, u, state):
        outs, ends = [], []
        for segment, start in enumerate(torch.tensor([0, *lengths]).cumsum(0)[:-1].tolist()):
            piece = slice(start, start + lengths[segment])
            before = state[segment : segment + 1]
            if lengths[segment]:
                timed = w[:, piece] if w.dim() == 4 else w
                out, before = op(r[:, piece], k[:, piece], v[:, piece], timed, u, before, backend=backend)
                outs.append(out)
            ends.append(before)
        return torch.cat(outs, 1), torch.cat(ends)

    return split


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("name", OPS)
def test_packed_is_one_by_one(draw, run, agree, name, backend, packing):
    op, lengths = OPS[name], PACKINGS[packing]
    (r, k, v, w, u, _), (dy, _) = draw(op, 1, sum(lengths), 2, 8, 16, -6, 3)
    (*_, state), (_, end) = draw(op, len(lengths), 1, 2, 8, 16, seed=1)
    inputs, grads = (r, k, v, w, u, state), (dy, end)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    truth = run(one_by_one(op, lengths, backend), inputs, grads)
    agree(run(op, inputs, grads, cu_seqlens=bounds, backend=backend), truth, 1e-13)


@pytest.mark.parametrize("name", OPS)
def test_packed_starts_from_zero(draw, name):
    op = OPS[name]
    (r, k, v, w, u, _), _ = draw(op, 1, 12, 2, 4, 4)
    out, end = op(r, k, v, w, u, cu_seqlens=torch.tensor([0, 5, 12]))
    alone, last = op(r[:, 5:], k[:, 5:], v[:, 5:], w[:, 5:] if name == "wkv6" else w, u)
    torch.testing.assert_close((out[:, 5:], end[1:]), (alone, last), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("b", "bounds", "states", "message"),
    [
        (2, [0, 6], 1, r"needs b = 1, got b = 2"),
        (1, [0, 5], 1, r"from 0 to t = 6, got \[0, 5\]"),
        (1, [1, 6], 1, r"from 0 to t = 6, got \[1, 6\]"),
        (1, [0], 1, r"from 0 to t = 6, got \[0\]"),
        (1, [0, 4, 2, 6], 3, r"must not decrease, got \[0, 4, 2, 6\]"),
        (1, [0, 2, 6], 3, r"2 segments need as many states, got state \[3, 1, 4, 4\]"),
    ],
    ids=["rows", "end", "start", "short", "decrease", "states"],
)
def test_bounds_that_do_not_fit(draw, b, bounds, states, message):
    (r, k, v, w, u, _), _ = draw(wkv6, b, 6, 1, 4, 4)
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(wkv6)(r, k, v, w, u, r.new_zeros(states, 1, 4, 4), cu_seqlens=torch.tensor(bounds))
