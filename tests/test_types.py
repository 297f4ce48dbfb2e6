"""The data that travels."""

from dataclasses import replace

import torch

from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence, State


def test_a_layout_counts_and_finds_its_patches():
    layout = Layout(rows=2, cols=3, prefix=1, suffix=2, separators=1)
    assert layout.tokens == 1 + 2 * 4 + 2
    assert layout.patch_indices().tolist() == [1, 2, 3, 5, 6, 7]
    assert Layout(prefix=32).patch_indices().numel() == 0


def test_a_slice_takes_everything_along():
    ids = torch.tensor([[1, 2, SLOT, SLOT, 3, 4]])
    sequence = Sequence(ids, (ImageSpan(0, 2, Layout(1, 2)),), torch.randn(1, 6, 4), ids, torch.zeros_like(ids), ids)
    part = sequence.slice(1, 5)
    assert part.ids.tolist() == [[2, SLOT, SLOT, 3]]
    assert part.image_spans == (ImageSpan(0, 1, Layout(1, 2)),)
    assert part.embeds.shape == (1, 4, 4)
    assert part.labels.shape == part.segments.shape == part.positions.shape == (1, 4)
    assert part.visual.tolist() == [[False, True, True, False]]
    assert part.targets.tolist() == [[SLOT, SLOT, 3, 4]]
    assert part.slice(3, 4).targets.tolist() == [[4]]
    assert part.slice(3, 4).full_size == part.full_size == 6
    assert sequence.slice(5, 6).targets.tolist() == [[IGNORE]]
    padded = replace(sequence, padding=ids == 4)
    assert (padded.size, padded.slice(4, 6).size, padded.slice(4, 6).full_size) == (5, 1, 5)
    assert sequence.slice(0, 2).image_spans == sequence.slice(4, 6).image_spans == ()


def test_a_state_is_a_value():
    state = State(({"a": torch.arange(6.0).view(3, 2)},), {"next_position": torch.tensor([1, 2, 3])})
    chosen = state.select(torch.tensor([2, 0, 0]))
    assert chosen.layers[0]["a"].tolist() == [[4, 5], [0, 1], [0, 1]]
    assert chosen.shared["next_position"].tolist() == [3, 1, 1]
    copy = state.clone()
    copy.layers[0]["a"].zero_()
    assert state.layers[0]["a"].sum() == 15
    assert state.nbytes == 6 * 4 + 3 * 8
    assert not State(({"a": torch.ones(1, requires_grad=True)},)).detach().layers[0]["a"].requires_grad


def test_everything_moves_to_a_device():
    ids = torch.zeros(1, 2, dtype=torch.long)
    batch = Batch(Sequence(ids, labels=ids), {"image": torch.zeros(1, 3, 2, 2)}, {"image": torch.zeros(1, 2, 2)})
    moved = batch.to("meta")
    assert {moved.sequence.ids.device.type, moved.sequence.labels.device.type} == {"meta"}
    assert moved.images["image"].is_meta
    assert moved.features["image"].is_meta
    assert State(({"a": ids},)).to("meta").layers[0]["a"].is_meta
