"""Functions of whole matrices whose slices lie on several processes."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def on_owners(matrices: Sequence[DTensor], function: Callable[[Tensor], Tensor]) -> list[DTensor]:
    """Apply a function of whole matrices; matrix i is computed by process i modulo their number, and sent back.

    Each process sends its slices of all matrices in one exchange, and receives whole those that it owns; the second
    exchange returns the slices of the results. Computed as products of slices, every step of the function would be an
    exchange of its own.

    Args:
        matrices: of one shape, all sharded alike over their first axis.
        function: of matrices `m rows cols`, one by one or together.
    """
    mesh, placements = matrices[0].device_mesh, matrices[0].placements
    shard_dim = next(index for index, placement in enumerate(placements) if placement.is_shard())
    group, size, rank = mesh.get_group(shard_dim), mesh.size(shard_dim), mesh.get_local_rank(shard_dim)
    rows, cols = matrices[0].shape
    # As DTensor shards: slices of ceil(rows / size), the last ones shorter or empty.
    step = -(-rows // size)
    heights = [max(0, min(step, rows - step * number)) for number in range(size)]
    owned = [range(owner, len(matrices), size) for owner in range(size)]
    local = [matrix.to_local() for matrix in matrices]

    sent = [_flat([local[index] for index in of_one], local[0]) for of_one in owned]
    received = [local[0].new_empty(len(owned[rank]) * height * cols) for height in heights]
    _exchange(received, sent, group)
    whole = torch.cat(
        [part.view(len(owned[rank]), height, cols) for part, height in zip(received, heights, strict=True)], dim=1
    )
    done = function(whole).to(local[0].dtype) if len(whole) else whole

    sent = [part.reshape(-1) for part in done.split(heights, dim=1)]
    received = [local[0].new_empty(len(of_one) * heights[rank] * cols) for of_one in owned]
    _exchange(received, sent, group)
    found: list[Tensor] = list(local)
    for of_one, part in zip(owned, received, strict=True):
        for index, piece in zip(of_one, part.view(len(of_one), heights[rank], cols), strict=True):
            found[index] = piece
    return [
        DTensor.from_local(piece, mesh, placements, run_check=False, shape=matrix.shape, stride=matrix.stride())
        for piece, matrix in zip(found, matrices, strict=True)
    ]


def _flat(slices: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.cat([piece.reshape(-1) for piece in slices]) if slices else like.new_empty(0)


def _exchange(received: list[Tensor], sent: list[Tensor], group: dist.ProcessGroup) -> None:
    """Part i of `sent` goes to process i, whose part comes into `received[i]`."""
    into, out = torch.cat([part.reshape(-1) for part in received]), torch.cat(sent)
    dist.all_to_all_single(into, out, [part.numel() for part in received], [part.numel() for part in sent], group=group)
    for part, values in zip(received, into.split([part.numel() for part in received]), strict=True):
        part.copy_(values)
