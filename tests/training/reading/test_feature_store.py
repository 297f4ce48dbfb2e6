"""Features on disk: what several runs share, mapped; another file for other images, weights or precision."""

import json
import multiprocessing as mp
import time
from dataclasses import dataclass

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.data.image import ImageError
from mmrnn.inference.feature_cache import FeatureCache
from mmrnn.io.disk import DiskFullError
from mmrnn.training.build import build_parts
from mmrnn.training.preparation import feature_store
from mmrnn.training.reading import feature_cache
from mmrnn.training.reading.feature_store import FeatureStore
from mmrnn.training.run import train

SMALL = (
    *("model=visualrwkv6_tiny", "data.scenes=4", "data.rounds=1", "data.kinds=[count]", "stage=align_short"),
    *("stage.align.steps=2", "stage.align.batch_size=2", "evaluate.samples=2", "evaluate.every=0", "precision=fp32"),
    *("evaluate.max_new_tokens=2", "tracker=none", "workers=0", "device=cpu"),
)


@dataclass(frozen=True)
class Named:
    key: str

    def open(self):
        raise AssertionError("kept features need no image")


IMAGES = [Named("a"), Named("b"), Named("c")]
SHAPE = (4, 8)


def cache(seed=0):
    features = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(seed)).half()
    return FeatureCache([image.key for image in IMAGES], features, {"b": ("it is broken", "an image is broken")})


def test_what_is_written_is_read(tmp_path):
    store = FeatureStore(tmp_path / "features", {"weights": "x"})
    assert not store.holds(IMAGES)
    store.write(IMAGES, cache())
    assert store.holds(IMAGES)
    found = store.read(IMAGES, SHAPE)
    assert torch.equal(found.features, cache().features)
    assert torch.equal(found["c"], cache()["c"])
    with pytest.raises(ImageError, match="it is broken"):
        found["b"]
    assert not FeatureStore().holds(IMAGES)
    FeatureStore().write(IMAGES, cache())


def test_the_file_is_mapped(tmp_path):
    """Its bytes come from the file when they are looked at, so that processes share them."""
    store = FeatureStore(tmp_path)
    store.write(IMAGES, cache())
    found, path = store.read(IMAGES, SHAPE), store.path(IMAGES)
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(torch.tensor([1234.0]).half().numpy().tobytes())
    assert found.features[-1, -1, -1] == 1234


def test_all_that_features_depend_on_names_the_file(tmp_path):
    store = FeatureStore(tmp_path, {"weights": "x"})
    others = [
        store.path(IMAGES[:2]),
        store.path(IMAGES[::-1]),
        FeatureStore(tmp_path, {"weights": "y"}).path(IMAGES),
        FeatureStore(tmp_path, {"weights": "x", "precision": "fp32"}).path(IMAGES),
    ]
    assert len({store.path(IMAGES), *others}) == 5
    assert FeatureStore(tmp_path, {"weights": "x"}).path(IMAGES) == store.path(IMAGES)


def write_often(store):
    torch.set_num_threads(1)
    for _ in range(30):
        store.write(IMAGES, cache())


def test_two_processes_write_the_same_file_at_once(tmp_path):
    store = FeatureStore(tmp_path)
    store.write(IMAGES, cache())
    context = mp.get_context("fork")
    writers = [context.Process(target=write_often, args=(store,), daemon=True) for _ in range(2)]
    for writer in writers:
        writer.start()
    end = time.monotonic() + 60
    while any(writer.is_alive() for writer in writers):
        assert time.monotonic() < end
        assert torch.equal(store.read(IMAGES, SHAPE).features, cache().features)
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [*tmp_path.iterdir()] == [store.path(IMAGES)]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "shape"])
def test_a_damaged_file_is_named(tmp_path, damage):
    store = FeatureStore(tmp_path)
    store.write(IMAGES, cache())
    path, shape = store.path(IMAGES), SHAPE
    if damage == "shape":
        shape = (4, 9)
    else:
        path.write_bytes({"cut": path.read_bytes()[:-9], "empty": b"", "text": b"features, once"}[damage])
    with pytest.raises(ValueError, match=r"\.safetensors is damaged .*delete it|\.safetensors is damaged: it has the"):
        store.read(IMAGES, shape)


@pytest.mark.slow
def test_runs_share_the_features(tmp_path, monkeypatch):
    """The second run computes none, and is equal to one that computes its own."""
    encoded = []
    encode = feature_cache.cache_features
    monkeypatch.setattr(
        feature_cache, "cache_features", lambda *words, **more: encoded.append(1) or encode(*words, **more)
    )

    def result(name, *words):
        encoded.clear()
        train(plain(compose(*SMALL, *words)), tmp_path / name)
        found = json.loads((tmp_path / name / "result.json").read_text())
        return len(encoded), found["loss"], (tmp_path / name / "answers.jsonl").read_text()

    shared = f"feature_folder={tmp_path / 'features'}"
    own, loss, answers = result("own")
    assert own == 3
    assert result("first", shared) == (3, loss, answers)
    assert len([*(tmp_path / "features").iterdir()]) == 3
    assert result("second", shared) == (0, loss, answers)
    assert result("other_seed", shared, "seed=1")[0] == 3, "this tower is initialised by the seed"
    assert result("other_size", shared, "data.size=64")[0] == 3, "images of another size under the same keys"


def test_every_fact_is_in_the_name(tmp_path):
    def path(*words):
        cfg = plain(compose(*SMALL, f"feature_folder={tmp_path}", *words))
        parts = build_parts(cfg)
        return feature_store(parts, cfg).path(IMAGES)

    first = path()
    assert path("connector=mlp", "data.kinds=[count]") == first
    assert len({first, path("precision=bf16"), path("encoder.layer=1"), path("data.size=64")}) == 4


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise DiskFullError("no space left")

    monkeypatch.setattr(FeatureStore, "write", full)
    train(plain(compose(*SMALL, f"feature_folder={tmp_path / 'features'}")), tmp_path / "run")
    assert "features are not kept on disk, and training continues: no space left" in capsys.readouterr().err
