"""Several data sets at once."""

from collections import Counter

import pytest

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import LLaVAJson, Mixture
from mmrnn.types import MapDataset, Sample, Turn

MIXES = sorted(path.stem for path in (conf_dir() / "data").glob("mix_*.yaml"))


class Shown(MapDataset):
    """So many samples, each with an image, of which two data sets call theirs alike."""

    def __init__(self, size, held=0):
        self.size, self.held = size, held

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return Sample((Turn("user", "<image>"), Turn("assistant", "yes")), (Paint(f"{index}.png"),), id=str(index))

    def images(self):
        return (self[index].images[0] for index in range(self.size))

    def held_out(self, samples):
        return {"records": Shown(min(samples, self.held))} if self.held else {}


class Paint:
    def __init__(self, key):
        self.key = key

    def open(self):
        return f"image {self.key}"


def read(mix):
    return Counter(mix[index].id for index in range(len(mix)))


def test_every_sample_once():
    mix = Mixture(parts={"a": Shown(3), "b": Shown(2)})
    assert read(mix) == Counter(["a/0", "a/1", "a/2", "b/0", "b/1"])


def test_an_epoch_reads_everything_in_the_given_proportions():
    mix = Mixture(parts={"a": Shown(6), "b": Shown(2), "c": Shown(1)}, weights={"a": 1.0, "b": 2.0, "c": 1.0})
    assert mix.sizes == {"a": 6, "b": 12, "c": 6}
    assert read(mix) == Counter({f"a/{n}": 1 for n in range(6)} | {"b/0": 6, "b/1": 6, "c/0": 6})
    assert Mixture(parts={"a": Shown(10), "b": Shown(3)}, weights={"a": 1.0, "b": 0.3}).sizes == {"a": 10, "b": 3}


def test_a_temperature_flattens_the_sizes():
    """Square roots of 16, 4 and 1 at temperature 2; the largest part is read once."""
    parts = {"a": Shown(16), "b": Shown(4), "c": Shown(1)}
    assert Mixture(parts=parts).sizes == Mixture(parts=parts, temperature=1.0).sizes == {"a": 16, "b": 4, "c": 1}
    mix = Mixture(parts=parts, temperature=2.0)
    assert mix.sizes == {"a": 16, "b": 8, "c": 4}
    assert read(mix) == Counter({f"a/{n}": 1 for n in range(16)} | {f"b/{n}": 2 for n in range(4)} | {"c/0": 4})
    assert Mixture(parts=parts, temperature=1e9).sizes == {"a": 16, "b": 16, "c": 16}


def test_a_part_may_be_a_mixture():
    inner = Mixture(parts={"b": Shown(4), "c": Shown(1)}, temperature=2.0)
    outer = Mixture(parts={"a": Shown(2), "mix": inner}, weights={"a": 1.0, "mix": 3.0})
    assert outer.sizes == {"a": 2, "mix": 6}
    assert read(outer) == Counter(
        {f"a/{n}": 1 for n in range(2)} | {f"mix/b/{n}": 1 for n in range(4)} | {"mix/c/0": 2}
    )


def test_images_of_one_name_are_two():
    mix = Mixture(parts={"a": Shown(2), "b": Shown(1)}, weights={"a": 1.0, "b": 1.0})
    assert [image.key for image in mix.images()] == ["a/0.png", "a/1.png", "b/0.png"]
    assert {mix[index].images[0].key for index in range(len(mix))} == {"a/0.png", "a/1.png", "b/0.png"}
    assert mix[2].images[0].open() == "image 0.png"
    with pytest.raises(IndexError, match=r"sample \(4\) must lie between 0 and 3"):
        mix[4]


def test_what_a_part_holds_out():
    mix = Mixture(parts={"a": Shown(2, held=5), "b": Shown(1)})
    assert {name: len(held) for name, held in mix.held_out(3).items()} == {"a: records": 3}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"parts": {}}, "parts is empty"),
        ({"parts": {"a": Shown(1)}, "weights": {"b": 1.0}}, "weights.b: no such part; there are: a"),
        ({"parts": {"a": Shown(1)}, "weights": {"a": 0.0}}, r"weights.a \(0.0\) must be above 0"),
        ({"parts": {"a": Shown(1), "b": Shown(1)}, "weights": {"a": 1.0}}, "weights: b has none"),
        ({"parts": {"a": Shown(1)}, "temperature": 0.5}, r"temperature \(0.5\) must be at least 1"),
        ({"parts": {"a": Shown(1)}, "weights": {"a": 1.0}, "temperature": 2.0}, "has a meaning without weights only"),
    ],
)
def test_mistakes(knobs, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**knobs)


def test_a_part_that_cannot_be_read_is_named():
    with pytest.raises(ValueError, match=r"data\.parts\.b: data\.file is not set"):
        len(Mixture(parts={"a": Shown(1), "b": LLaVAJson()}))
    with pytest.raises(ValueError, match=r"data\.parts\.b is empty"):
        len(Mixture(parts={"a": Shown(1), "b": Shown(0)}))


@pytest.mark.parametrize("name", MIXES)
def test_a_published_mix_wants_its_files(name):
    mix = instantiate(plain(compose(config=f"data/{name}"))["data"])
    assert len(mix.parts) > 1
    with pytest.raises(
        ValueError,
        match=rf"data\.parts\.{next(iter(mix.parts))}: .* set it to the (JSON )?file of the (records|documents)",
    ):
        len(mix)
