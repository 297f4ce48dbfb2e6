"""Every sample that is left out is listed with its reason, once; too many of them stop the run with a table."""

import json
import os
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmrnn.data import Collator, LLaVAJson, Mixture
from mmrnn.io import jsonl
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import LanguageModel, Stage
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.reading.sample_reader import SkippedSample
from mmrnn.training.reading.skipped import SKIPPED, SkippedSamples
from mmrnn.types import ImageSpec, Layout, MapDataset


class Eye:
    image = ImageSpec((16, 16))

    def layout(self, height, width):
        return Layout(rows=height // 4, cols=width // 4)


def png(width, height):
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    parts = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def record(name, image="a.jpg", question="<image>\nq", answer="a", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return json.dumps({"id": name, "image": image, "conversations": turns, **more})


LONG = "why? " * 60

FAULTS = {
    record("truncated", "truncated.jpg"): "an image is broken",
    record("0x0", "0x0.png"): "an image is of no known format",
    record("bomb", "bomb.png"): "an image is too large",
    record("line", "line.png"): "an image is too large",
    record("depth", "depth.tif"): "an image is broken",
    record("missing", "missing.jpg"): "an image is not there",
    record("page", "page.jpg"): "an image is of no known format",
    record("nothing", "nothing.jpg"): "an image is of no known format",
    record("pipe", "pipe.jpg"): "an image cannot be read",
    record("folder", "folder.jpg"): "an image cannot be read",
    record("long", question=f"<image>\n{LONG}"): "there is no target in its first 80 positions",
    record("split", question="y" * 67 + " <image>"): "max_length splits an image",
    '{"id": "half", "conversations": [{"from": "hum': "a line is no JSON",
    record("tags", ["a.jpg", "a.jpg"]): "tags and images differ in number",
    record("empty", answer=" "): "a reply is empty",
    record("outside", "../a.jpg"): "image is outside the folder of the images",
    record("network", "https://a.b/c.jpg"): "image is in the network: download it and name the file",
    record("base64", "data:image/png;base64,%%%"): "an image in the record is no base64",
    '{"id": "silent"}': "conversations must be a list of turns",
    '["no record"]': "a record must be an object",
}
"""Twenty faulty lines, and the reason for which each is left out."""


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    Image.effect_noise((64, 64), 90).convert("RGB").save(data / "a.jpg")
    (data / "truncated.jpg").write_bytes((data / "a.jpg").read_bytes()[:800])
    (data / "0x0.png").write_bytes(png(0, 0))
    (data / "bomb.png").write_bytes(png(50_000, 50_000))
    (data / "line.png").write_bytes(png(100_000, 1))
    Image.fromarray(np.full((8, 8), -5.0, np.float32)).save(data / "depth.tif")
    (data / "page.jpg").write_text("<html>404</html>")
    (data / "nothing.jpg").touch()
    os.mkfifo(data / "pipe.jpg")
    (data / "folder.jpg").mkdir()
    # Mended, not left out: another mode, a transparent palette, an image turned by EXIF, a long text, a tag too many.
    Image.new("CMYK", (64, 64)).save(data / "cmyk.jpg")
    Image.new("I;16", (64, 64), 40_000).save(data / "16.png")
    Image.new("P", (64, 64)).save(data / "palette.png", transparency=0)
    mended = [record(name, name) for name in ("cmyk.jpg", "16.png", "palette.png")]
    mended += [record("truncated text", answer=LONG), record("tagged twice", question="<image><image>q")]
    good = [record(f"good {number}") for number in range(15)]
    lines = [line for group in zip(FAULTS, [*good, *mended], strict=True) for line in group]
    (data / "d.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return data


def loader_of(data, samples=0, workers=2):
    collate = Collator(DemoTokenizer(), RWKVChat(image_position="inline"), {"image": Eye()}, max_length=80)
    stage = Stage(batch_size=4, grad_accum_steps=2)
    return StepLoader(data, collate, LanguageModel(), stage, samples=samples, seed=0, workers=workers)


def read(loader, skipped, until):
    while loader.samples < until:
        step = next(loader)
        skipped.add(step.dropped, loader.samples)


def test_twenty_faults_are_listed_with_their_reasons(folder, tmp_path):
    data = LLaVAJson(file=str(folder / "d.jsonl"))
    skipped, loader = SkippedSamples(tmp_path, World(), max_skipped=0.01), loader_of(data)
    skipped.start(data, 0)
    read(loader, skipped, -(-len(data) // 4) * 4)
    skipped.flush(loader.samples)
    lines = jsonl.records(tmp_path / SKIPPED)
    # The last step reaches into the second epoch.
    found = {line["id"]: line for line in lines}
    assert Counter(line["reason"].split(";")[0] for line in found.values()) == Counter(FAULTS.values())
    assert len(found) == len(FAULTS) == 20
    by_reader = [line for line in found.values() if not line["samples"]]
    assert all(line["worker"] is None for line in by_reader)
    assert {line["worker"] for line in found.values() if line["samples"]} == {0, 1}
    assert {line["rank"] for line in lines} == {0}
    assert found["missing"]["detail"] == f"{folder}/missing.jpg is not there"
    assert found["#24"]["reason"] == "a line is no JSON"


def test_a_resumed_run_lists_them_once(folder, tmp_path):
    data, whole = LLaVAJson(file=str(folder / "d.jsonl")), tmp_path / "whole"
    for out, stops in ((whole, (48,)), (tmp_path / "torn", (20, 48))):
        samples = 0
        for stop in stops:
            skipped, loader = SkippedSamples(out, World(), max_skipped=0.01), loader_of(data, samples, workers=0)
            skipped.start(data, samples)
            read(loader, skipped, stop)
            skipped.flush(loader.samples)
            if stop == 20:
                # Killed four steps later, after the list and before the checkpoint.
                read(loader, skipped, 36)
                skipped.flush(loader.samples)
            samples = stop
    assert (tmp_path / "torn" / SKIPPED).read_text() == (whole / SKIPPED).read_text()
    assert len(jsonl.records(whole / SKIPPED)) > 20


class Clean(MapDataset):
    def __init__(self, size=50_000):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index): ...


def dropped(count, reason="an image is not there", start=0):
    return [SkippedSample(n, f"s{n}", reason, f"{n}.jpg is not there") for n in range(start, start + count)]


def test_too_many_stop_the_run_with_a_table(tmp_path):
    skipped = SkippedSamples(tmp_path, World(), max_skipped=0.01)
    skipped.start(Clean(), 0)
    skipped.add(dropped(60), 256)
    skipped.add(dropped(40, "a reply is empty", 60), 512)
    skipped.flush(512)
    skipped.add(dropped(1, start=100), 768)
    with pytest.raises(TrainingError) as caught:
        skipped.flush(768)
    assert str(caught.value) == (
        "101 of the last 768 samples that were read are left out (13.2%), and max_skipped=0.01 allows 100:\n"
        "     61  an image is not there (first: s0)\n"
        "     40  a reply is empty (first: s60)\n"
        f"{tmp_path}/skipped.jsonl names each; mend the data, or raise max_skipped"
    )
    assert len(jsonl.records(tmp_path / SKIPPED)) == 101


def test_only_the_samples_read_last_count(tmp_path):
    skipped = SkippedSamples(tmp_path, World(), max_skipped=0.01)
    skipped.start(Clean(), 0)
    for end in range(5_000, 40_000, 5_000):
        skipped.add(dropped(50, start=end), end)
        skipped.flush(end)
    skipped.add(dropped(51, start=50_000), 44_000)
    with pytest.raises(TrainingError, match="101 of the last 10,000 samples"):
        skipped.flush(44_000)


def test_a_resumed_run_goes_on_counting(tmp_path):
    first = SkippedSamples(tmp_path, World(), max_skipped=0.01)
    first.start(Clean(), 0)
    first.add(dropped(70), 1_000)
    first.flush(1_000)
    second = SkippedSamples(tmp_path, World(), max_skipped=0.01)
    second.start(Clean(), 1_000)
    second.add(dropped(31, start=2_000), 2_000)
    with pytest.raises(TrainingError, match="101 of the last 2,000 samples"):
        second.flush(2_000)


@pytest.mark.parametrize("max_skipped", [0.0, 1.0])
def test_the_share_can_be_none_or_all(tmp_path, max_skipped):
    skipped = SkippedSamples(tmp_path, World(), max_skipped=max_skipped)
    skipped.start(Clean(), 0)
    skipped.flush(4)
    skipped.add(dropped(4), 8)
    if max_skipped:
        skipped.flush(8)
        return
    with pytest.raises(TrainingError, match="4 of the last 8 samples"):
        skipped.flush(8)


def test_records_that_the_reader_refuses_count_before_the_first_step(tmp_path):
    (tmp_path / "d.jsonl").write_text(f"{record('good')}\n" * 300 + "{\n" * 101)
    data = LLaVAJson(file=str(tmp_path / "d.jsonl"))
    mixed = Mixture(parts={"one": data})
    for one in (data, mixed):
        message = r"101 of the records of the data, all 401, are left out \(25.2%\), and max_skipped=0.01 allows 100:\n"
        with pytest.raises(TrainingError, match=message + r"    101  a line is no JSON \(first: (one/)?#300\)"):
            SkippedSamples(tmp_path / "run", World(), max_skipped=0.01).start(one, 0)
        SkippedSamples(tmp_path / "run", World(), max_skipped=0.02).start(one, 0)
    assert len(jsonl.records(tmp_path / "run" / SKIPPED)) == 101


class Two(World):
    """The first of two ranks."""

    def gather(self, value):
        return [value, self.other]


def test_the_first_rank_writes_what_all_have_dropped(tmp_path):
    world = Two(size=2)
    others = SkippedSamples(tmp_path / "none", World(), max_skipped=0.01)
    others.add([one._replace(rank=1, worker=3) for one in dropped(2, start=1)], 16)
    object.__setattr__(world, "other", others._new)
    skipped = SkippedSamples(tmp_path, world, max_skipped=0.01)
    skipped.add(dropped(1), 8)
    skipped.add(dropped(1, start=9), 24)
    skipped.flush(24)
    lines = jsonl.records(tmp_path / SKIPPED)
    assert [(line["id"], line["rank"], line["worker"]) for line in lines] == [
        ("s0", 0, None),
        ("s1", 1, 3),
        ("s2", 1, 3),
        ("s9", 0, None),
    ]


def test_a_clean_run_has_no_list(tmp_path):
    skipped = SkippedSamples(tmp_path, World(), max_skipped=0.01)
    skipped.start(Clean(), 0)
    skipped.flush(8)
    assert not (tmp_path / SKIPPED).exists()


@pytest.mark.parametrize(
    "line", ["{}", '{"id": "a", "reason": "b", "samples": "1"}', '{"id": 1, "reason": "b", "samples": 1}', "["]
)
def test_a_damaged_list_is_named(tmp_path, line):
    (tmp_path / SKIPPED).write_text(line + "\n")
    with pytest.raises(ValueError, match=r"skipped.jsonl is damaged: line 1 .*; delete"):
        SkippedSamples(tmp_path, World(), max_skipped=0.01).start(Clean(), 8)
