"""Lengths of samples: those of the rows that the collator makes, measured once, stored beside the data."""

import json
import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.data import Collator, ImageFile, InMemoryImage, LLaVAJson, lengths
from mmrnn.data.image import ImageError, header_size, image_size, open_image
from mmrnn.data.lengths import LengthStore, data_folder, sample_lengths
from mmrnn.data.preprocess import prepared_size, to_tensor
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.types import ImageSpec, Layout


class Eye:
    """A modality whose tokens are patches of 4 pixels."""

    def __init__(self, **spec):
        self.image = ImageSpec(**{"size": (16, 16), **spec})

    def layout(self, height, width):
        return Layout(rows=height // 4, cols=width // 4)


def collator(spec=None, max_length=60):
    return Collator(DemoTokenizer(), RWKVChat(), {"image": spec or Eye()}, max_length=max_length)


def record(number):
    image = {} if number % 5 == 4 else {"image": f"{number % 4}.png"}
    turns = [("human", "<image>\n" * bool(image) + "what? " * number), ("gpt", "it is " * (number % 7 + 1))]
    return {"id": str(number), **image, "conversations": [{"from": who, "value": text} for who, text in turns]}


@pytest.fixture
def data(tmp_path):
    for number, size in enumerate([(40, 20), (9, 30), (16, 16), (64, 8)]):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.png")
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(record(number)) + "\n" for number in range(23)))
    return LLaVAJson(file=str(tmp_path / "d.jsonl"))


def rows(data, collate):
    """Length of the row that each sample becomes; 0: it is dropped."""
    return [0 if (batch := collate([sample])) is None else batch.sequence.ids.shape[1] for sample in data]


SPECS = {
    "one size": Eye(),
    "fit": Eye(resize="fit", size=(24, 24), multiple=4),
    "within": Eye(resize="within", size=(24, 24), multiple=4),
}


@pytest.mark.parametrize("spec", SPECS)
def test_lengths_are_those_of_the_rows(data, spec, monkeypatch, tmp_path):
    collate = collator(SPECS[spec])
    expected = rows(data, collate)
    assert 0 in expected
    assert len(set(expected)) > 6
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("an image is decoded"))
    lengths = sample_lengths(data, collate, LengthStore(folders=[tmp_path]))
    assert lengths.dtype == np.int32
    assert lengths.tolist() == expected


def test_they_are_measured_once(data, tmp_path, monkeypatch):
    store, collate = LengthStore({"data": {"file": data.file}}, [tmp_path]), collator()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = sample_lengths(data, collate, store)
    assert torch.equal(torch.get_rng_state(), before)
    assert [path.name[:9] for path in tmp_path.glob(".*")] == [".lengths-"]
    monkeypatch.setattr(Collator, "length", lambda *_: pytest.fail("measured again"))
    assert sample_lengths(data, collate, store).tolist() == first.tolist()


@pytest.mark.parametrize("change", ["cards", "file", "layout", "max_length", "damage"])
def test_what_the_lengths_depend_on_has_them_measured_again(data, tmp_path, change):
    cards, collate = {"data": {"file": data.file}, "prompt": {"_target_": "a"}}, collator()
    first = sample_lengths(data, collate, LengthStore(cards, [tmp_path]))
    [stored] = tmp_path.glob(".lengths-*")
    if change == "cards":
        cards = {**cards, "prompt": {"_target_": "b"}}
    elif change == "file":
        os.utime(data.file, ns=(1, 1))
    elif change == "layout":
        collate = collator(Eye(size=(8, 8)))
    elif change == "max_length":
        collate = collator(max_length=30)
    else:
        stored.write_bytes(stored.read_bytes()[:100])
    store = LengthStore(cards, [tmp_path])
    assert store.load(data, collate) is None
    again = sample_lengths(data, collate, store)
    assert (again.tolist() == first.tolist()) == (change not in ("layout", "max_length"))
    assert store.load(data, collate).tolist() == again.tolist()


def test_a_pattern_stands_for_its_files(tmp_path):
    shards = [tmp_path / f"d-{number}.jsonl" for number in range(2)]
    for shard in shards:
        shard.write_text("\n".join(json.dumps({**record(number), "image": None}) for number in range(3)))
    for pattern in ("d-{0..1}.jsonl", "d-*.jsonl"):
        data = LLaVAJson(file=str(tmp_path / pattern))
        store = LengthStore({"data": {"file": data.file}}, [tmp_path])
        sample_lengths(data, collator(), store)
        assert store.load(data, collator()) is not None
        os.utime(shards[1], ns=(1, time.time_ns()))
        assert store.load(data, collator()) is None


def test_a_folder_that_cannot_be_written_to_leaves_it_to_the_next(data, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    store = LengthStore({}, [tmp_path / "file", tmp_path / "run"])
    lengths = sample_lengths(data, collator(), store)
    assert len(list((tmp_path / "run").glob(".lengths-*"))) == 1
    assert store.load(data, collator()).tolist() == lengths.tolist()
    nowhere = LengthStore({}, [tmp_path / "file"])
    assert sample_lengths(data, collator(), nowhere).tolist() == lengths.tolist()
    assert nowhere.load(data, collator()) is None


class Rank:
    """A rank of three whose collectives return prepared values."""

    size = 3

    def __init__(self, rank, prepared):
        self.rank, self.prepared, self.own = rank, iter(prepared), []

    def gather(self, value):
        self.own.append(value)
        return next(self.prepared, [value] * self.size)


def test_every_rank_measures_its_share(data, tmp_path):
    whole = sample_lengths(data, collator(), LengthStore())
    shares = []
    for rank in range(3):
        one = Rank(rank, [])
        sample_lengths(data, collator(), LengthStore(folders=[tmp_path / f"{rank}"]), one)
        assert one.own[0] is False
        shares.append(np.concatenate(one.own[1]))
        # Only the first writes.
        assert len(list(tmp_path.glob(f"{rank}/.lengths-*"))) == (rank == 0)
    assert np.concatenate(shares).tolist() == whole.tolist()
    assert {len(share) for share in shares} == {7, 8}
    last = Rank(2, [[True, True, False], [[share] for share in shares]])
    assert sample_lengths(data, collator(), LengthStore(), last).tolist() == whole.tolist()


def test_workers_measure_the_same(data, monkeypatch, tmp_path):
    class Noted(LLaVAJson):
        def __getitem__(self, index):
            (tmp_path / f"worker {torch.utils.data.get_worker_info().id}").touch()
            return super().__getitem__(index)

    monkeypatch.setattr(lengths, "AT_ONCE", 5)
    one = sample_lengths(data, collator(), LengthStore())
    two = sample_lengths(Noted(file=data.file), collator(), LengthStore(), workers=2)
    assert one.tolist() == two.tolist()
    assert len([*tmp_path.glob("worker *")]) == 2


def test_the_progress_is_shown_and_may_end(data):
    class Stopped(Exception):
        pass

    def track(parts):
        for part in parts:
            seen.append(part)
            yield part
            raise Stopped

    seen = []
    with pytest.raises(Stopped):
        sample_lengths(data, collator(), LengthStore(), track=track)
    assert seen == [0]


def test_a_sample_that_cannot_be_read_has_no_length(data):
    class Torn(LLaVAJson):
        def __getitem__(self, index):
            if index == 2:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    lengths = sample_lengths(Torn(file=data.file), collator(), LengthStore())
    assert lengths[2] == 0
    assert lengths[1] > 0


def test_the_folder_of_the_data(tmp_path):
    (tmp_path / "a").mkdir()
    assert data_folder({"file": str(tmp_path / "a" / "d.json")}) == tmp_path / "a"
    assert data_folder({"file": str(tmp_path / "a" / "{000..099}.tar")}) == tmp_path / "a"
    assert (
        data_folder({"parts": {"x": {"file": "s3://b/c"}, "y": {"file": str(tmp_path / "a" / "d")}}}) == tmp_path / "a"
    )
    assert data_folder({"scenes": 7}) is None


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("decoding", ["composed", "load_image", "convert"])
def test_the_header_says_the_size(tmp_path, orientation, decoding):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    whole = open_image(path, decoding=decoding)
    assert header_size(path, decoding=decoding) == whole.size
    assert image_size(ImageFile(path, decoding=decoding)) == whole.size
    assert image_size(InMemoryImage(path.read_bytes(), decoding=decoding)) == whole.size


def test_a_header_is_refused_as_the_image_would_be(tmp_path):
    with pytest.raises(ImageError, match="is not there") as caught:
        header_size(tmp_path / "none.png")
    assert caught.value.reason == "an image is not there"
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="599 are allowed"):
        header_size(tmp_path / "a.png", max_pixels=599)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad", "fit", "within"])
@pytest.mark.parametrize("size", [(40, 20), (3, 50), (24, 24), (100, 1), (25, 24)])
def test_the_prepared_size_is_that_of_the_pixels(resize, size):
    spec = ImageSpec((24, 24), resize=resize, multiple=4)
    assert prepared_size(size, spec) == tuple(to_tensor(Image.new("RGB", size), spec).shape[1:])
