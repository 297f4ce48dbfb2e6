"""Recall against counting by hand, in chunks of any size; ties count against the right candidate."""

import pytest
import torch
from torch.nn import functional as F

from mmrnn.evaluation.metrics import recall as module
from mmrnn.evaluation.metrics.recall import NEVER, recall, retrieve
from mmrnn.inference.embedding import similarity


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def by_hand(images, texts, owners):
    """Ranks of images and texts, pair by pair."""
    scores = similarity(images, texts)
    of_images, of_texts = [], []
    for image, row in enumerate(scores):
        own = [score.item() for score, owner in zip(row, owners, strict=True) if owner == image]
        wrong = [score.item() for score, owner in zip(row, owners, strict=True) if owner != image]
        of_images.append(sum(score >= max(own) for score in wrong) if own else NEVER)
    for text, owner in enumerate(owners.tolist()):
        column = scores[:, text].tolist()
        others = [score for image, score in enumerate(column) if image != owner]
        of_texts.append(sum(score >= column[owner] for score in others) if owner >= 0 else NEVER)
    return of_images, of_texts


@pytest.mark.parametrize("elements", [1, 200, 2**24])
@pytest.mark.parametrize("vectors", [1, 4])
def test_ranks(monkeypatch, elements, vectors):
    monkeypatch.setattr(module, "ELEMENTS", elements)
    images, texts = unit(13, vectors, 6), unit(40, 1, 6)
    owners = torch.arange(40) % 15 - 1
    owners[owners == 13] = 3
    owners[owners == 7] = -1  # an image without texts, and texts without an image
    of_images, of_texts = retrieve(images, texts, owners)
    expected = by_hand(images, texts, owners)
    assert (of_images.ranks.tolist(), of_texts.ranks.tolist()) == expected
    scores = similarity(images, texts)
    assert torch.equal(of_images.nearest, scores.argmax(1))
    assert torch.equal(of_texts.nearest, scores.argmax(0))
    assert of_images.ranks[7] == NEVER


def test_what_is_found():
    """Two images and three captions: the second image has a caption that fits the first one."""
    images = torch.eye(2)[:, None]
    texts = F.normalize(torch.tensor([[1.0, 0.1], [0.9, 0.2], [0.1, 1.0]]), dim=-1)[:, None]
    of_images, of_texts = retrieve(images, texts, torch.tensor([0, 1, 1]))
    assert of_images.ranks.tolist() == [0, 0]
    assert of_texts.ranks.tolist() == [0, 1, 0]
    assert of_texts.nearest.tolist() == [0, 0, 1]
    assert recall(of_texts.ranks) == pytest.approx({"recall@1": 2 / 3, "recall@5": 1.0, "recall@10": 1.0})


def test_ties_count_against_the_right_one():
    """A model whose vectors are all equal up to rounding finds nothing, though an argmax would find the first."""
    images = unit(1, 1, 16).expand(30, 1, 16) + 1e-8 * torch.randn(30, 1, 16)
    texts = F.normalize(images.repeat_interleave(2, 0) + 1e-8 * torch.randn(60, 1, 16), dim=-1)
    for found, ranks in zip(retrieve(images, texts, torch.arange(30).repeat_interleave(2)), (58, 29), strict=True):
        assert set(found.ranks.tolist()) == {ranks}
        assert set(recall(found.ranks).values()) == {0.0}
