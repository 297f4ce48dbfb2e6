"""Filtering of records: what each rule drops, what is written, and a pass that is killed."""

import json

import numpy as np
import pytest
from PIL import Image

from mmrnn.data import Captions, LLaVAJson, Parquet, WebDataset
from mmrnn.data.curation import filter as filter_module
from mmrnn.data.curation.filter import DUPLICATE, filter_records
from mmrnn.data.curation.items import UnreadableError
from mmrnn.data.curation.rules import FilterRules, text_of
from mmrnn.data.curation.scripts import letter_share
from mmrnn.io.journal import LINES, partial_folder
from tests.data.readers.shards import dialogue, image_bytes, write_tar


def write_records(folder, records):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def kept(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def reasons(left_out):
    return {reason: count for reason, (count, _) in left_out.reasons.items()}


@pytest.fixture
def data(tmp_path):
    """`data(records, images)`: a data set of LLaVA records, and images by name with their sizes."""

    def make(records, **images):
        for name, size in images.items():
            Image.new("RGB", size, name).save(tmp_path / f"{name}.png")
        return LLaVAJson(file=str(write_records(tmp_path, records)))

    return make


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (FilterRules(min_side=10), "a side of an image has less than 10 pixels"),
        (FilterRules(max_aspect=2), "one side of an image is more than 2 times the other"),
        (FilterRules(max_pixels=200), "an image has more than 200 pixels"),
    ],
)
def test_sizes_of_images(data, tmp_path, rules, reason):
    """The image of 30 x 9 pixels breaks each rule, and one of 12 x 10 none; where several are shown, each counts."""
    records = [
        dialogue(id="good", image="red.png", extra=1),
        dialogue(id="bad", image="blue.png"),
        dialogue(id="both", image=["red.png", "blue.png"], question="<image><image>What?"),
        dialogue(id="none", question="What?"),
    ]
    out = tmp_path / "out.jsonl"
    found = filter_records(data(records, red=(12, 10), blue=(30, 9)), out, rules)
    assert kept(out) == [records[0], records[3]]
    assert (found.total, found.kept) == (4, 2)
    assert found.dropped.reasons == {reason: (2, "bad")}
    assert LLaVAJson(file=str(out))[0].images[0].open().size == (12, 10)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (FilterRules(min_chars=7), ["long", "chinese"]),
        (FilterRules(max_chars=12), ["short", "chinese"]),
        (FilterRules(scripts={("latin",): 0.9}), ["short", "long"]),
        (FilterRules(scripts={("han", "latin"): 0.5}), ["short", "long", "chinese"]),
        (FilterRules(scripts={("han",): 0.5}), ["chinese"]),
        (FilterRules(scripts={("latin",): 0.1, ("han",): 0.1}), []),
    ],
)
def test_texts(data, tmp_path, rules, expected):
    """The text of a record is that of its turns without tags."""
    words = {"short": ("1?", "fox"), "long": ("What is it?", "A fox."), "chinese": ("这是什么?", "一只狐狸")}
    records = [
        dialogue(id=id, image="red.png", question=f"<image>\n{asked}", reply=reply)
        for id, (asked, reply) in words.items()
    ]
    out = tmp_path / "out.jsonl"
    found = filter_records(data(records, red=(4, 4)), out, rules)
    assert [record["id"] for record in kept(out)] == expected
    assert found.dropped.total == 3 - len(expected)


def test_the_text_of_a_sample(data):
    [sample] = data([dialogue("A mug", "<image>\n What? ", image="red.png", system="Be brief")], red=(4, 4))
    assert text_of(sample) == "What?\nA mug"


@pytest.mark.parametrize(
    ("text", "scripts", "share"),
    [
        ("abc 中", ["latin"], 0.75),
        ("été ß Ω", ["latin"], 0.8),
        ("カタカナ ひらがな 漢字", ["katakana", "hiragana"], 0.8),
        ("123 !?", ["latin"], 0.0),
        ("", ["han"], 0.0),
        ("\U00020000a", ["han"], 0.5),
    ],
)
def test_share_of_letters(text, scripts, share):
    assert letter_share(text, scripts) == pytest.approx(share)


@pytest.mark.parametrize("name", ["chinese", "latin}a", ""])
def test_a_script_that_there_is_not(name):
    with pytest.raises(ValueError, match="no script of Unicode"):
        FilterRules(scripts={(name,): 0.5})


def test_limits_out_of_range():
    with pytest.raises(ValueError, match="must be at least 1"):
        FilterRules(max_aspect=float("nan"))
    with pytest.raises(ValueError, match="between 0 and 1"):
        FilterRules(scripts={("han",): 2})


def test_duplicates(data, tmp_path):
    """Equal pixels in other files are one image; of records, the turns count, too."""
    records = [
        dialogue(id="first", image="red.png"),
        dialogue(id="again", image="again.bmp"),
        dialogue(id="asked otherwise", image="red.png", reply="A cup"),
        dialogue(id="text", question="What?"),
        dialogue(id="text again", question="What?"),
        dialogue(id="other size", image="large.png"),
    ]
    Image.new("RGB", (4, 4), "red").save(tmp_path / "again.bmp")
    Image.new("RGB", (2, 8), "red").save(tmp_path / "large.png")
    by_image, by_record = tmp_path / "images.jsonl", tmp_path / "records.jsonl"
    found = filter_records(data(records, red=(4, 4)), by_image, FilterRules(), duplicates="images")
    assert [record["id"] for record in kept(by_image)] == ["first", "text", "text again", "other size"]
    assert found.dropped.reasons == {DUPLICATE: (2, "again")}
    filter_records(data(records), by_record, FilterRules(), duplicates="records")
    assert [record["id"] for record in kept(by_record)] == ["first", "asked otherwise", "text", "other size"]
    with pytest.raises(ValueError, match="leave out headers"):
        filter_records(data(records), tmp_path / "x.jsonl", FilterRules(), duplicates="images", headers=True)


def hostile(tmp_path):
    """Records of which one is good: the others break the schema, or their images do not open."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    images = ["cut.png", "gone.png", "text.png", "folder.png", "../good.png", "http://x.org/a.png", "good.png"]
    records = [dialogue(id=name, image=name) for name in images]
    path = write_records(tmp_path, [*records, {"id": "no turns"}, [1], None])
    with path.open("ab") as file:
        file.write(b'{"id": "cut", "conver\n\xff\xfe\n')
    return LLaVAJson(file=str(path))


def test_hostile_records_and_images_are_counted(tmp_path):
    out = tmp_path / "out.jsonl"
    found = filter_records(hostile(tmp_path), out, FilterRules())
    assert [record["id"] for record in kept(out)] == ["good.png"]
    assert reasons(found.dropped) == {
        "an image is broken": 1,
        "an image is not there": 1,
        "an image is of no known format": 1,
        "an image cannot be read": 1,
    }
    assert found.invalid.total == 7
    assert not partial_folder(out).exists()


def test_by_headers_broken_pixels_are_not_noticed(tmp_path):
    out = tmp_path / "out.jsonl"
    filter_records(hostile(tmp_path), out, FilterRules(), headers=True)
    assert [record["id"] for record in kept(out)] == ["cut.png", "good.png"]


def test_strict_stops_at_the_first(tmp_path, data):
    with pytest.raises(UnreadableError, match="is outside the folder"):
        filter_records(hostile(tmp_path), tmp_path / "out.jsonl", FilterRules(), strict=True)
    records = [dialogue(id="gone", image="gone.png")]
    with pytest.raises(UnreadableError, match=r"record 'gone': .*gone.png is not there"):
        filter_records(data(records), tmp_path / "out.jsonl", FilterRules(), strict=True)
    found = filter_records(data([*records, dialogue(question="")]), tmp_path / "b.jsonl", FilterRules())
    assert found.kept == 1


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("cut", [0, 3])
def test_a_killed_pass_continues(tmp_path, data, monkeypatch, cut):
    """The output is that of a pass at once, also where the last line was written in part."""
    monkeypatch.setattr(filter_module, "ROUND", 4)
    colors = [f"#{value:02x}0000" for value in (0, 10, 20, 0, 40, 10, 60, 20, 80, 90)]
    for number, color in enumerate(colors):
        Image.new("RGB", (4, 4 + number % 2), color).save(tmp_path / f"{number}.png")
    records = [dialogue(id=str(number), image=f"{number}.png") for number in range(10)]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    expected = filter_records(data(records), whole, FilterRules(max_aspect=1.2), duplicates="images")
    assert 2 < expected.kept < 9

    def killed(steps):
        for number, step in enumerate(steps):
            if number == 2:
                raise Killed
            yield step

    options = {"duplicates": "images"}
    with pytest.raises(Killed):
        filter_records(data(records), out, FilterRules(max_aspect=1.2), track=killed, **options)
    assert not out.exists()
    lines = partial_folder(out) / LINES
    assert len(lines.read_text().splitlines()) == 8
    lines.write_bytes(lines.read_bytes()[: -cut or None])
    with pytest.raises(ValueError, match=r"other settings \(they differ in max_aspect\)"):
        filter_records(data(records), out, FilterRules(max_aspect=2), **options)
    found = filter_records(data(records), out, FilterRules(max_aspect=1.2), **options)
    assert out.read_text() == whole.read_text()
    assert found == expected
    with pytest.raises(ValueError, match="exists; delete it"):
        filter_records(data(records), out, FilterRules())


def samples(dataset):
    """Turns and pixels, but for the names."""
    return [(one.turns, [np.asarray(image.open()).tolist() for image in one.images]) for one in dataset]


def test_shards_become_records_with_images_beside_them(tmp_path):
    """Images that are stored in tar shards are written once each, and the records read as before."""
    red, blue = image_bytes("red"), image_bytes("blue", (5, 2), "JPEG")
    members = [("a.png", red), ("a.txt", "red"), ("b.jpg", blue), ("b.json", dialogue(image="x/b.jpg", system="Hm"))]
    members += [("c.png", red), ("c.txt", "red again"), ("d.png", b"no image"), ("d.txt", "broken")]
    shards = WebDataset(file=write_tar(tmp_path / "a.tar", members))
    out = tmp_path / "out" / "kept.jsonl"
    found = filter_records(shards, out, FilterRules())
    assert (found.kept, reasons(found.dropped)) == (3, {"an image is of no known format": 1})
    again = LLaVAJson(file=str(out))
    assert samples(again) == samples([shards[index] for index in range(3)])
    assert [one.id for one in again] == ["a", "b", "c"]
    assert len([*(out.parent / "kept_images").glob("*/*")]) == 2
    assert {path.suffix for path in (out.parent / "kept_images").glob("*/*")} == {".png", ".jpg"}


def test_rows_of_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    turns = [{"user": "What?", "assistant": "A mug"}, {"user": "And?", "assistant": "Tea"}]
    states = [{"state": [[0.5, 0.25]]}, None]
    turns_with_state = [{"role": "user", "content": "<image><state>?"}, {"role": "assistant", "content": "A mug"}]
    columns = {"images": [[image_bytes("red"), image_bytes("blue")]], "texts": [turns]}
    pq.write_table(pa.table({**columns}), tmp_path / "a.parquet")
    columns = {"images": [[image_bytes("red")]], "messages": [turns_with_state], "observations": [states[0]]}
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    rows = Parquet(file=str(tmp_path / "*.parquet"))
    filter_records(rows, tmp_path / "out.jsonl", FilterRules())
    again = LLaVAJson(file=str(tmp_path / "out.jsonl"))
    assert samples(again) == samples(rows)
    assert again[1].observations["state"][0].tolist() == [[0.5, 0.25]]


def test_captions_of_coco_and_tables_are_read_by_the_same_reader(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.tsv").write_text("image\tcaption\na.png\tA dog\na.png\tA\n")
    listed = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}
    listed["annotations"] = [{"id": n, "image_id": 1, "caption": text} for n, text in enumerate(("A dog", "A"))]
    (tmp_path / "coco.json").write_text(json.dumps(listed))
    for name in ("a.tsv", "coco.json"):
        out = tmp_path / f"{name}.jsonl"
        filter_records(Captions(file=str(tmp_path / name)), out, FilterRules(min_chars=2))
        assert [sample.turns[1].text for sample in Captions(file=str(out))] == ["A dog"]


def test_files_in_several_folders_need_a_folder_of_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name, [dialogue(question="What?")])
    pattern = str(tmp_path / "*" / "data.jsonl")
    with pytest.raises(ValueError, match="lie in 2 folders"):
        filter_records(LLaVAJson(file=pattern), tmp_path / "out.jsonl", FilterRules())
    found = filter_records(LLaVAJson(file=pattern, image_folder=str(tmp_path)), tmp_path / "out.jsonl", FilterRules())
    assert found.kept == 2
