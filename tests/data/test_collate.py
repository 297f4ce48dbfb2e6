"""Samples become batches."""

from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image

from mmrnn.data import Collator, ImageFile, to_tensor
from mmrnn.data.image import ImageError
from mmrnn.prompts import RWKVChat, Template
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.types import IGNORE, SLOT, ImageSpec, Layout, Sample, Turn

SPEC = ImageSpec((4, 4))


@dataclass
class Eye:
    """A modality as the collator sees it."""

    image: ImageSpec = SPEC
    tokens: int = 3

    def layout(self, height, width):
        assert (height, width) == self.image.size
        return Layout(prefix=self.tokens)


@dataclass
class Paint:
    """An image of one colour."""

    key: str

    def open(self):
        return Image.new("RGB", (8, 8), self.key)


def sample(question, answer, *colours, id=""):
    return Sample((Turn("user", question), Turn("assistant", answer)), tuple(map(Paint, colours)), id=id)


def collator(*wired, prompt=None, **knobs):
    return Collator(DemoTokenizer(), prompt or RWKVChat(), {"image": Eye()}, *wired, **knobs)


SAMPLES = [
    sample("<image>\nwhat colour?", "red", "red", id="a"),
    sample("is this text?", "yes it is", id="b"),
    sample("<image> or <image>?", "the second one", "green", "blue", id="c"),
]


def decoded(ids, mask):
    return DemoTokenizer().decode([id for id, wanted in zip(ids.tolist(), mask.tolist(), strict=True) if wanted])


def test_rows_are_padded_on_the_right():
    batch = collator()(SAMPLES)
    sequence = batch.sequence
    assert sequence.segments is None
    assert sequence.ids.shape == sequence.labels.shape
    replies = [decoded(row, row != IGNORE) for row in sequence.labels]
    assert replies == [" red\n\n", " yes it is\n\n", " the second one\n\n"]
    assert decoded(sequence.ids[1], sequence.ids[1] > 0) == "User: is this text?\n\nAssistant: yes it is\n\n"
    assert (sequence.ids[0, -1], sequence.labels[0, -1]) == (0, IGNORE)
    supervised = sequence.labels != IGNORE
    assert torch.equal(sequence.labels[supervised], sequence.ids[supervised])


def test_images_stand_in_the_order_of_their_blocks():
    batch = collator()(SAMPLES)
    assert [block.sample for block in batch.sequence.image_spans] == [0, 2, 2]
    for block in batch.sequence.image_spans:
        assert (batch.sequence.ids[block.sample, block.start : block.stop] == SLOT).all()
    assert int(batch.sequence.visual.sum()) == 3 * Eye.tokens
    expected = [to_tensor(Paint(colour).open(), Eye.image) for colour in ("red", "green", "blue")]
    assert torch.equal(batch.images["image"], torch.stack(expected))
    assert batch.features == {}


def test_features_spare_opening_the_images():
    class Closed(Paint):
        def open(self):
            raise AssertionError("opened")

    features = {name: torch.full((5, 2), float(index)) for index, name in enumerate(("red", "green", "blue"))}
    closed = [replace(one, images=tuple(Closed(image.key) for image in one.images)) for one in SAMPLES]
    batch = collator(features)(closed)
    assert batch.images == {}
    assert torch.equal(batch.features["image"], torch.stack([features[name] for name in ("red", "green", "blue")]))
    with pytest.raises(ValueError, match="no cached features of pink"):
        collator(features)([sample("<image>", "a", "pink")])


def test_text_alone_has_no_images():
    batch = collator()([SAMPLES[1], sample("nothing to see", "no", "red")])
    assert (batch.images, batch.sequence.image_spans) == ({}, ())


def test_generation_pads_on_the_left_and_marks_it():
    asked = [replace(one, turns=(one.turns[0], Turn("assistant", ""))) for one in SAMPLES]
    batch = collator(for_generation=True)(asked)
    sequence = batch.sequence
    assert decoded(sequence.ids[1], sequence.segments[1] == 1) == "User: is this text?\n\nAssistant:"
    assert (sequence.ids[sequence.segments == 0] == 0).all()
    assert (sequence.segments[:, -1] == 1).all()
    assert (sequence.segments.diff(dim=1) >= 0).all()
    for block in sequence.image_spans:
        assert (sequence.ids[block.sample, block.start : block.stop] == SLOT).all()
    assert collator(for_generation=True)(asked[:1]).sequence.segments is None
    assert len(collator(for_generation=True, max_length=2)(asked).sequence.ids) == 3, (
        "a prompt to be answered is never cut"
    )


def test_the_head_is_kept():
    whole = collator()([SAMPLES[1]]).sequence
    length = int((whole.labels[0] != IGNORE).nonzero()[0]) + 1
    batch = collator(max_length=length)([SAMPLES[1]]).sequence
    assert torch.equal(batch.ids, whole.ids[:, :length])
    assert torch.equal(batch.labels, whole.labels[:, :length])
    assert 0 < (batch.labels != IGNORE).sum() < (whole.labels != IGNORE).sum()


def test_images_beyond_the_cut_are_not_opened():
    first, second = SAMPLES[0], sample("<image> and now?", "gone", "none")
    both = Sample(first.turns + second.turns, (*first.images, ImageFile("/nowhere.png")), id="d")
    length = len(collator()([first]).sequence.ids[0])
    batch = collator(max_length=length)([both])
    assert torch.equal(batch.sequence.ids, collator()([first]).sequence.ids)
    assert len(batch.images["image"]) == len(batch.sequence.image_spans) == 1


def test_what_cannot_be_used_is_dropped_and_named(tmp_path, caplog):
    (tmp_path / "broken.png").write_bytes(b"no")
    broken = replace(SAMPLES[0], images=(ImageFile(tmp_path / "broken.png"),), id="broken")
    long = sample("why? " * 30, "so", id="long")
    halved = sample("why? " * 8 + "<image>", "so", "red", id="halved")
    collate = collator(prompt=RWKVChat(image_position="last"), max_length=20)
    batch = collate([broken, SAMPLES[1], long, halved])
    assert len(batch.sequence.ids) == 1
    names, reasons, details = zip(*collate.dropped, strict=True)
    assert names == ("broken", "long", "halved")
    assert reasons[0] == "an image is of no known format"
    assert reasons[1] == details[1] == "there is no target in its first 20 positions"
    assert reasons[2] == "max_length splits an image"
    assert "broken.png is not an image" in details[0]
    assert details[2] == "the length (20) cuts the image at 18:21 in two"
    assert "sample long is dropped" in caplog.text
    assert collate([broken]) is None
    assert len(collate.dropped) == 4
    with pytest.raises(ImageError, match=r"broken\.png is not an image") as caught:
        collator(for_generation=True)([broken])
    assert caught.value.reason == reasons[0]


def test_tags_that_do_not_fit_drop_a_sample_and_are_a_mistake_when_it_is_asked_about():
    wrong = [
        (sample("<image>", "a", "red", "green"), "tags and images differ in number", "1 tags <image> for 2 images"),
        (
            replace(SAMPLES[1], observations={"state": (torch.zeros(1, 2),)}),
            "tags and observations differ in number",
            "has 0 tags <state> for 1 observations",
        ),
        (
            Sample((Turn("user", "a"), Turn("assistant", ""), Turn("user", "b"), Turn("assistant", "c"))),
            "the prompt cannot format its turns",
            "turn 2 is an empty reply",
        ),
    ]
    for one, reason, detail in wrong:
        collate = collator()
        assert collate([one]) is None
        assert collate.dropped[0].reason == reason
        assert detail in collate.dropped[0].detail
        with pytest.raises(ValueError, match=detail):
            collator(for_generation=True)([one])


def test_a_modality_that_the_model_lacks_is_a_mistake():
    with pytest.raises(ValueError, match="no modality 'image'"):
        Collator(DemoTokenizer(), RWKVChat(), {"video": Eye()})([SAMPLES[0]])


def test_a_packed_row_holds_the_same_samples():
    many = [*SAMPLES, sample("<image>\nshort?", "yes", "pink", id="d"), sample("more?", "no", id="e")]
    batch = collator(pack=True)(many)
    sequence = batch.sequence
    assert sequence.ids.shape == (1, sum(len(collator()([one]).sequence.ids[0]) for one in many))
    for index, one in enumerate(many):
        ids = sequence.ids[sequence.segments == index].tolist()
        assert ids == collator()([one]).sequence.ids[0].tolist()
    for block in sequence.image_spans:
        inside = slice(block.start, block.stop)
        assert (sequence.ids[block.sample, inside] == SLOT).all()
        assert len(set(sequence.segments[block.sample, inside].tolist())) == 1
    colours = [colour for one in many for colour in (image.key for image in one.images)]
    shown = [pixels[:, 0, 0].tolist() for pixels in batch.images["image"]]
    assert shown == [to_tensor(Paint(colour).open(), Eye.image)[:, 0, 0].tolist() for colour in colours]


def sums(sequence, table):
    """The summed next-token loss of a model that knows how many tokens of its segment it has read, and the last one."""
    segments = torch.zeros_like(sequence.ids) if sequence.segments is None else sequence.segments
    total = torch.zeros(())
    for ids, labels, parts in zip(sequence.ids, sequence.labels, segments, strict=True):
        starts = {int(part): int((parts == part).nonzero()[0]) for part in parts.unique()}
        for at in range(len(ids) - 1):
            depth = at - starts[int(parts[at])]
            if labels[at + 1] != IGNORE:
                total = total - table[ids[at].clamp(min=0), (labels[at + 1] + depth) % 1024].log_softmax(-1)[0]
    return total


@pytest.mark.parametrize(
    "prompt", [RWKVChat(), Template(first="{images}", reply="{text}\n")], ids=["dialogue", "plain"]
)
def test_packing_does_not_change_the_loss(prompt):
    many = [*SAMPLES, sample("<image>\nshort?", "yes", "pink"), sample("more?", "no")]
    table = torch.randn(1024, 1024, 2)
    apart = collator(prompt=prompt)(many).sequence
    packed = collator(prompt=prompt, pack=True)(many).sequence
    assert len(packed.ids) == 1
    torch.testing.assert_close(sums(packed, table), sums(apart, table))
    assert int((packed.labels[:, 1:] != IGNORE).sum()) == int((apart.labels[:, 1:] != IGNORE).sum())


def test_the_first_token_of_a_sample_is_never_a_target():
    prompt = Template(first="{images}", reply="{text}\n")
    packed = collator(prompt=prompt, pack=True)(SAMPLES[1:2] * 4).sequence
    starts = torch.cat([torch.ones(len(packed.ids), 1, dtype=torch.long), packed.segments.diff(dim=1)], 1) != 0
    assert int(starts.sum()) > len(packed.ids)
    assert (packed.labels[starts] == IGNORE).all()


def test_generation_and_pack_exclude_each_other():
    with pytest.raises(ValueError, match="for_generation and pack exclude each other"):
        collator(for_generation=True, pack=True)
