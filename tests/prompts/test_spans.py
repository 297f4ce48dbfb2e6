"""Pieces become ids, labels and blocks."""

import pytest

from mmrnn.prompts import TokenizedSample, tokenize, truncate
from mmrnn.types import IGNORE, SLOT, ImageSpan, Layout, Span, Tokenizer


class Letters(Tokenizer):
    """One id a letter."""

    vocab, pad, ends = 128, 0, (0,)

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


class WithStart(Letters):
    starts = (7, 8)


GRID = Layout(rows=2, cols=2, suffix=1)


def test_only_targets_are_supervised_and_images_become_slots():
    spans = [Span("ab"), Span(image=True), Span("c"), Span("de", target=True)]
    ids, labels, blocks = tokenize(spans, Letters(), [GRID], row=3)
    assert ids == [97, 98, *[SLOT] * 5, 99, 100, 101]
    assert labels == [*[IGNORE] * 8, 100, 101]
    assert blocks == [ImageSpan(3, 2, GRID)]


def test_every_image_has_its_own_layout_and_the_sense_is_named():
    spans = [Span(image=True), Span(image=True), Span("a")]
    ids, _, blocks = tokenize(spans, Letters(), [GRID, Layout(prefix=2)], modality="video")
    assert [(block.start, block.stop, block.modality) for block in blocks] == [(0, 5, "video"), (5, 7, "video")]
    assert ids == [SLOT] * 7 + [97]


def test_what_a_tokenizer_starts_texts_with_comes_once_and_is_no_target():
    ids, labels, blocks = tokenize([Span(image=True), Span("a", target=True)], WithStart(), [Layout(prefix=1)])
    assert (ids, labels) == ([7, 8, SLOT, 97], [IGNORE, IGNORE, IGNORE, 97])
    assert blocks[0].start == 2


def test_a_image_without_visual_slots_keeps_its_place():
    ids, _, blocks = tokenize([Span("a"), Span(image=True), Span("b")], Letters(), [Layout()])
    assert ids == [97, 98]
    assert (blocks[0].start, blocks[0].stop) == (1, 1)


def test_a_missing_layout_is_said():
    with pytest.raises(ValueError, match="places for 2 images, but there are layouts for 1"):
        tokenize([Span(image=True), Span(image=True)], Letters(), [GRID])


@pytest.mark.parametrize(("length", "kept"), [(2, 0), (7, 1), (8, 1), (100, 1)])
def test_cut_keeps_the_head_and_whole_images(length, kept):
    row = tokenize([Span("ab"), Span(image=True), Span("c", target=True)], Letters(), [GRID])
    head = truncate(row, length)
    assert head == TokenizedSample(row.ids[:length], row.labels[:length], row.image_spans[:kept])


@pytest.mark.parametrize("length", [3, 6])
def test_cut_never_halves_a_image(length):
    row = tokenize([Span("ab"), Span(image=True), Span("c", target=True)], Letters(), [GRID])
    with pytest.raises(ValueError, match=rf"length \({length}\) cuts the image at 2:7 in two"):
        truncate(row, length)
