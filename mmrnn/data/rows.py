"""Rows of a batch: the samples of each end to end, padded to the longest."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mmrnn.prompts import TokenizedSample
from mmrnn.types import IGNORE, ImageSpan
from mmrnn.types import Sequence as Tokens


def lay_rows(rows: Sequence[Sequence[TokenizedSample]], pad_id: int, *, left: bool, pack: bool) -> Tokens:
    """Return ids, labels, spans, segments and padding of rows.

    Args:
        rows: samples of each row.
        pad_id: in the padding.
        left: pad on the left, with segment 0 in the padding and 1 in the text, instead of on the right.
        pack: tell the samples of a row apart by their segments.
    """
    sizes = [sum(len(sample.ids) for sample in row) for row in rows]
    shape = len(rows), max(sizes)
    ids, labels = torch.full(shape, pad_id), torch.full(shape, IGNORE)
    segments, padding = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)
    spans: list[ImageSpan] = []
    for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        start = shape[1] - size if left else 0
        for segment, sample in enumerate(row):
            stop = start + len(sample.ids)
            ids[index, start:stop] = torch.tensor(sample.ids)
            labels[index, start:stop] = torch.tensor(sample.labels)
            padding[index, start:stop] = False
            # Padding after the last sample of a row belongs to the segment of that sample.
            segments[index, start:] = 1 if left else segment
            spans += [replace(span, sample=index, start=start + span.start) for span in sample.image_spans]
            start = stop
    padded = min(sizes) < shape[1]
    return Tokens(
        ids,
        tuple(spans),
        labels=labels,
        segments=segments if pack or (left and padded) else None,
        padding=padding if padded else None,
    )
