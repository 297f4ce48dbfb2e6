"""An index of a folder of images: what changes is noticed, and nothing else is embedded again."""

import io
import json
import os
from itertools import pairwise

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import mmrnn
from mmrnn.data.image import open_image
from mmrnn.data.preprocess import to_tensor
from mmrnn.inference.embedding import caption_ids, similarity
from mmrnn.inference.search import image_search, index_file
from mmrnn.inference.search.image_search import index_path, search, update_index
from mmrnn.inference.search.index_file import HEADER, ImageIndex, IndexWriter
from mmrnn.inference.search.listing import Entry, list_tree
from mmrnn.inference.search.rerank import rerank
from mmrnn.types import Embedder
from tests.inference.retrieval_run import COLORS, train, write_images


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    """A model whose vectors differ from image to image."""
    made = mmrnn.load(train(tmp_path_factory.mktemp("stage1"), steps=1))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.fixture
def folder(tmp_path):
    """Six images, two of them in a folder inside, and files that are none."""
    images = write_images(tmp_path / "images")
    (images / "inner" / "deep").mkdir(parents=True)
    for color in COLORS[:2]:
        (images / f"{color}.png").rename(images / "inner" / "deep" / f"{color}.PNG")
    (images / "notes.txt").write_text("no image")
    (images / ".hidden").mkdir()
    os.link(images / "blue.png", images / ".hidden" / "a.png")
    return images


@pytest.fixture
def update(assistant, folder):
    path = index_path(folder, assistant.model)
    return lambda **more: update_index(assistant.reader, folder, path, **{"batch_size": 4, **more})


@pytest.fixture
def embedded(monkeypatch):
    """Numbers of images in each batch that is embedded."""
    counts = []
    embed = image_search.embed_prepared
    monkeypatch.setattr(
        image_search, "embed_prepared", lambda reader, images: counts.append(len(images)) or embed(reader, images)
    )
    return counts


def paths(index):
    return {entry.path for entry in index.images}


EVERY = {*(f"{color}.png" for color in COLORS[2:]), *(f"inner/deep/{color}.PNG" for color in COLORS[:2])}


def test_images_are_embedded_once(assistant, folder, update, embedded):
    first = update()
    assert (first.added, first.removed, first.faults) == (6, 0, {})
    assert embedded == [4, 2]
    assert paths(first.index) == EVERY
    written = first.index.path.stat()
    again = update()
    assert (again.added, again.removed) == (0, 0)
    assert embedded == [4, 2]
    assert first.index.path.stat().st_mtime_ns == written.st_mtime_ns
    [(entries, vectors)] = again.index.chunks()
    expected = assistant.embed(image=[folder / entry.path for entry in entries])
    torch.testing.assert_close(vectors, expected, atol=5e-4, rtol=0)


def test_new_changed_and_removed_images(folder, update, embedded):
    update()
    del embedded[:]
    Image.new("RGB", (9, 9), "purple").save(folder / "inner" / "new.jpg")
    (folder / "blue.png").unlink()
    Image.new("RGB", (30, 30), "pink").save(folder / "white.png")
    found = update()
    assert (found.added, found.removed) == (2, 2)
    assert embedded == [2]
    assert paths(found.index) == EVERY - {"blue.png"} | {"inner/new.jpg"}
    os.utime(folder / "white.png", (1, 1))
    assert (update().added, len(ImageIndex(found.index.path).images)) == (1, 6)


def test_the_nearest_come_first(assistant, folder, update, monkeypatch):
    monkeypatch.setattr(index_file, "ROWS", 4)
    index = update().index
    query = assistant.embed(text="a red wall")
    files = sorted(EVERY)
    scores = similarity(query, assistant.embed(image=[folder / path for path in files]))[0]
    expected = sorted(zip(scores.tolist(), files, strict=True), reverse=True)
    assert min(one - other for (one, _), (other, _) in pairwise(expected)) > 2e-3
    found = search(index, query, 5)
    assert [match.path for match in found] == [path for _, path in expected[:5]]
    assert [match.score for match in found] == pytest.approx([score for score, _ in expected[:5]], abs=1e-3)
    assert len(search(index, query, 100)) == 6
    [same] = search(index, assistant.embed(image=folder / "blue.png"), 1)
    assert same.path == "blue.png"
    assert same.score == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="cannot be compared"):
        search(index, query[..., :3], 1)


def test_equal_images_in_the_order_of_their_paths(assistant, folder, update):
    for name in ("z.png", "a.png"):
        Image.open(folder / "blue.png").save(folder / name)
    found = search(update().index, assistant.embed(image=folder / "blue.png"), 3)
    assert [match.path for match in found] == ["a.png", "blue.png", "z.png"]


def test_broken_images_are_named_and_not_opened_again(folder, update, embedded, monkeypatch):
    (folder / "half.png").write_bytes((folder / "blue.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("no image")
    (folder / "gone.gif").symlink_to(folder / "nowhere.gif")
    found = update()
    assert found.faults.keys() == {"half.png", "text.jpg", "gone.gif"}
    assert found.faults["gone.gif"] == "No such file or directory"
    assert paths(found.index) == EVERY
    monkeypatch.setattr(image_search, "prepare_image", None)
    assert update().faults == found.faults
    monkeypatch.undo()
    Image.new("RGB", (9, 9), "red").save(folder / "text.jpg")
    assert update().faults.keys() == {"half.png", "gone.gif"}


def test_a_folder_of_broken_images_alone(assistant, tmp_path):
    (tmp_path / "a.png").write_text("")
    found = update_index(assistant.reader, tmp_path, tmp_path / "index")
    assert (found.index.images, [*found.faults]) == ([], ["a.png"])
    assert search(found.index, assistant.embed(text="a"), 3) == []
    Image.new("RGB", (9, 9), "red").save(tmp_path / "b.png")
    assert paths(update_index(assistant.reader, tmp_path, tmp_path / "index").index) == {"b.png"}


def test_an_interrupted_call_leaves_what_it_has_embedded(folder, update, embedded, monkeypatch):
    embed = image_search.embed_prepared

    def interrupted(reader, images):
        if len(embedded) == 2:
            raise KeyboardInterrupt
        return embed(reader, images)

    monkeypatch.setattr(image_search, "embed_prepared", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(batch_size=2)
    monkeypatch.setattr(image_search, "embed_prepared", embed)
    found = update(batch_size=2)
    assert (found.added, len(found.index.images)) == (2, 6)
    assert embedded == [2, 2, 2]
    assert not [path for path in folder.iterdir() if path.name.startswith(f".{found.index.path.name}")]


@pytest.mark.parametrize("written", [0, 5, 64])
def test_an_interrupt_while_vectors_are_written(tmp_path, written):
    """The images before it stay, and the file is whole."""

    class Interrupted(io.FileIO):
        asked = 0

        def write(self, content):
            self.asked += 1
            if self.asked == 3:  # the first is the space of the header
                super().write(content[:written])
                raise KeyboardInterrupt
            return super().write(content)

    vectors = torch.nn.functional.normalize(torch.randn(2, 2, 8), dim=-1)
    path = tmp_path / "index"
    with Interrupted(path, "w") as file:
        writer = IndexWriter(file, "a")
        writer.add([Entry("a.png", 1, 1), Entry("b.png", 1, 1)], vectors)
        with pytest.raises(KeyboardInterrupt):
            writer.add([Entry("c.png", 1, 1), Entry("d.png", 1, 1)], vectors)
        writer.finish()
    [(found, kept)] = ImageIndex(path).chunks()
    assert [entry.path for entry in found] == ["a.png", "b.png"]
    torch.testing.assert_close(kept, vectors, atol=1e-3, rtol=0)


def test_versions_are_written_on_the_way(update, monkeypatch):
    """A process that is killed loses what it embedded since the last one."""
    known = []
    write = image_search.replace_file
    monkeypatch.setattr(
        image_search, "replace_file", lambda path, make: write(path, make) or known.append(len(ImageIndex(path).images))
    )
    update(batch_size=2, round_seconds=0.0)
    assert known == [2, 4, 6, 6]


def test_another_model_has_another_index(assistant, folder, update):
    first = update().index.path
    with torch.no_grad():
        assistant.model.embedder.image_proj.bias.add_(1)
    try:
        assert index_path(folder, assistant.model) != first
        with pytest.raises(ValueError, match="was made by another model; delete it, or name another file"):
            update_index(assistant.reader, folder, first)
    finally:
        with torch.no_grad():
            assistant.model.embedder.image_proj.bias.sub_(1)


def rewritten(path, **changes):
    """An index with other tensors, under a header of the right length."""
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | changes, path, metadata)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size <= HEADER
    path.write_bytes(HEADER.to_bytes(8, "little") + content[8 : 8 + size].ljust(HEADER) + content[8 + size :])


def text(content):
    return torch.frombuffer(
        bytearray(content if isinstance(content, bytes) else json.dumps(content).encode()), dtype=torch.uint8
    )


def entries(count, **more):
    return text({"images": [[f"{n}.png", 1, 1] for n in range(count)], "faults": [], **more})


HOSTILE = {
    "entries of other vectors": {"entries": entries(5)},
    "no JSON": {"entries": text(b"[" * 10_000)},
    "other JSON": {"entries": text([1])},
    "no paths": {"entries": text({"images": [[1, 2, 3]] * 6, "faults": []})},
    "numbers that are none": {"entries": text({"images": [["a", True, 3]] * 6, "faults": []})},
    "an image twice": {"entries": text({"images": [["a", 1, 1]] * 6, "faults": []})},
    "a fault without words": {"entries": entries(6, faults=[["a", 1, 1, 7]])},
    "another dtype": {"vectors": torch.zeros(6, 8, 16)},
    "other axes": {"vectors": torch.zeros(6, 8, dtype=torch.float16)},
    "nothing in an image": {"vectors": torch.zeros(6, 0, 16, dtype=torch.float16)},
    "another tensor": {"more": torch.zeros(1)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_index_is_refused(update, name):
    path = update().index.path
    rewritten(path, **HOSTILE[name])
    with pytest.raises(ValueError, match=r"is damaged or no index of images: .*; delete it, or name another file"):
        update()


def test_entries_that_are_too_large_are_not_read(update, monkeypatch):
    update()
    monkeypatch.setattr(index_file, "MAX_ENTRIES", 100)
    monkeypatch.setattr(index_file.json, "loads", None)
    with pytest.raises(ValueError, match=r"its entries have \d{3} bytes"):
        update()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 7.0])
def test_vectors_that_are_no_unit_vectors_win_nothing(assistant, update, value):
    index = update().index
    [(_, vectors)] = index.chunks()
    vectors[3, 2] = value
    rewritten(index.path, vectors=vectors.half())
    with pytest.raises(ValueError, match="its vectors are not of unit length; delete it"):
        search(update().index, assistant.embed(text="a"), 3)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 1100, -1])
def test_a_truncated_index_is_refused(update, kept):
    path = update().index.path
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is damaged or no index of images"):
        update()


def test_a_path_that_leads_out_of_the_folder_is_never_opened(assistant, folder, update):
    path = update().index.path
    outside = [["../../etc/passwd", 1, 1], *[[f"{n}.png", 1, 1] for n in range(5)]]
    rewritten(path, entries=text({"images": outside, "faults": []}))
    found = update()
    assert (found.added, found.removed) == (6, 6)
    assert paths(found.index) == EVERY


def test_a_model_that_embeds_nothing(tmp_path):
    cfg = mmrnn.compose("model=visualrwkv6_tiny")
    made = mmrnn.inference.assistant.Assistant(
        mmrnn.build(cfg), *(mmrnn.config.instantiate.instantiate(cfg[name]) for name in ("tokenizer", "prompt"))
    )
    with pytest.raises(ValueError, match="objective=blip2"):
        update_index(made.reader, tmp_path, tmp_path / "index")


def test_listing(tmp_path):
    with pytest.raises(ValueError, match="cannot be searched: No such file or directory"):
        list_tree(tmp_path / "nowhere")
    (tmp_path / "a.png").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / os.fsdecode(b"\xff.png")).write_text("")
    found = list_tree(tmp_path)
    assert [entry.path for entry in found.entries] == ["a.png", os.fsdecode(b"\xff.png")]
    assert found.faults == {}


@torch.no_grad()
def test_a_second_ordering(assistant, folder, update):
    """By the logit of the matching head plus the cosine, whatever the batch."""
    model, objective = assistant.model, assistant.model.embedder
    matches = search(update().index, assistant.embed(text="a red wall"), 5)
    found = rerank(assistant.reader, folder, matches, "a red wall", batch_size=2)
    ids, mask = caption_ids(["a red wall"], assistant.tokenizer, assistant.prompt)
    expected = {}
    for match in matches:
        pixels = to_tensor(open_image(folder / match.path), model.modalities["image"].image)[None]
        tokens = model.modalities["image"].encode(pixels)
        logits = objective.belongs(model.modalities["image"].connector, tokens, ids, mask)
        expected[match.path] = match.score + logits[0, 1].item()
    assert {match.path: match.score for match in found} == pytest.approx(expected, abs=1e-4)
    assert [match.path for match in found] == sorted(expected, key=expected.get, reverse=True)
    assert [match.path for match in found] != [match.path for match in matches]


def test_an_embedder_without_a_matching_head(assistant, folder, monkeypatch):
    class Plain(torch.nn.Module, Embedder):
        def embed_images(self, model, batch):
            return torch.ones(1, 1, 1)

        def embed_texts(self, model, ids, mask):
            return torch.ones(1, 1, 1)

    monkeypatch.setattr(assistant.model, "find_embedder", Plain)
    with pytest.raises(ValueError, match="Plain has no head that reads image and text together"):
        rerank(assistant.reader, folder, [], "a")
