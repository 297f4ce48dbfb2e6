"""Our own files are replaced all at once, or not at all."""

import json
import os

import pytest
import torch

from mmrnn.io import shards
from mmrnn.io.tensor_files import read


class Killed(BaseException):
    """Nothing is cleared up after it."""


def state(seed, files):
    """Three tensors of 4 kB and a text, in one file or in three."""
    tensors = {name: torch.full((1000,), float(seed)) for name in "abc"}
    return tensors, {"config.yaml": str(seed)}, 5000 if files else 10**9


def write_until(at, folder, seed):
    """A write that is killed at the call number `at` that renames, deletes or makes sure."""
    calls = 0

    def counted(do):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls == at:
                raise Killed
            return do(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in ("rename", "replace", "unlink", "fsync", "rmdir", "mkdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        shards.write(folder, *state(seed, files=seed % 2))


def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path):
    """Killed at every such call in turn: what is found has one seed, in its tensors and in its text."""
    shards.write(tmp_path, *state(0, files=False))
    seen, at = [], 0
    while "finished" not in seen:
        seed, at = int((tmp_path / "config.yaml").read_text()) + 1, at + 1
        try:
            write_until(at, tmp_path, seed)
            seen.append("finished")
        except Killed:
            pass
        before = sorted(tmp_path.rglob("*"))
        found = int(shards.text_file(tmp_path, "config.yaml").read_text())
        tensors = read(shards.weight_source(tmp_path))
        assert sorted(tmp_path.rglob("*")) == before
        assert {value.item() for tensor in tensors.values() for value in tensor} == {float(found)}
        assert set(tensors) == set("abc")
        assert found in (seed, seed - 1)
        seen.append("new" if found == seed else "old")
    assert seen.count("old") > 5
    assert seen.count("new") > 5
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", [".saved", ".saving"])
def test_a_link_in_place_of_a_folder_of_the_writer(name, tmp_path):
    """Reading a folder whose `.saved` was a link moved files out of the folder behind it."""
    other, folder = tmp_path / "other", tmp_path / "folder"
    shards.write(folder, *state(0, files=False))
    other.mkdir()
    (other / "secret.txt").write_text("secret")
    (other / "files.json").write_text(json.dumps({"files": ["secret.txt"]}))
    (folder / name).symlink_to(other)
    before = sorted(tmp_path.rglob("*"))
    if name == ".saved":
        with pytest.raises(ValueError, match="is a link, which no writer of mmrnn makes"):
            shards.weight_source(folder)
    with pytest.raises(ValueError, match="is a link, which no writer of mmrnn makes"):
        shards.write(folder, *state(1, files=False))
    assert sorted(tmp_path.rglob("*")) == before


def test_shards(tmp_path):
    shards.write(tmp_path, *state(1, files=True))
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 12_000
    assert index["weight_map"] == dict(zip("abc", names, strict=True))
    shards.write(tmp_path, *state(2, files=False))
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]


def test_views_and_shared_tensors(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    shards.write(tmp_path, {"row": base[1], "turned": base.T, "all": base, "again": base}, {})
    found = read(tmp_path)
    assert torch.equal(found["row"], base[1])
    assert torch.equal(found["turned"], base.T)
    assert torch.equal(found["all"], found["again"])
