"""Parquet files with images inside: dialogues, captions, damage."""

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from mmrnn.data import ImageError, Parquet
from mmrnn.io.errors import RecordError
from mmrnn.io.records import parquet_table
from mmrnn.types import Turn
from tests.data.readers.shards import image_bytes

RED, BLUE = image_bytes("red"), image_bytes("blue", (5, 2), "JPEG")
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURNS = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A mug"}]
ASKED = (Turn("user", "<image>\nWhat?"), Turn("assistant", "A mug"))


def write(path, columns, types=None, **knobs):
    types = types or {}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, **knobs)
    return str(path)


def cell(content, path="image.jpg"):
    return {"bytes": content, "path": path}


@pytest.fixture(autouse=True)
def no_open_tables():
    parquet_table._tables.clear()


@pytest.mark.parametrize(
    ("columns", "types"),
    [
        ({"image": [cell(RED), cell(BLUE)], "messages": [TURNS] * 2}, {"image": CELL}),
        ({"images": [[cell(RED)], [cell(BLUE)]], "conversations": [TURNS] * 2}, {"images": pa.list_(CELL)}),
        ({"images": [[cell(RED)], [cell(BLUE)]], "messages": [TURNS] * 2}, {"images": pa.large_list(CELL)}),
        ({"image": [RED, BLUE], "messages": [TURNS] * 2}, {"image": pa.binary()}),
        ({"image": [RED, BLUE], "messages": [TURNS] * 2}, {"image": pa.large_binary()}),
        ({"images": [[RED], [BLUE]], "messages": [TURNS] * 2}, {"images": pa.list_(pa.binary())}),
        (
            {"images": [[{"bytes": RED}], [{"bytes": BLUE}]], "messages": [TURNS] * 2},
            {"images": pa.list_(pa.struct([("bytes", pa.binary())]))},
        ),
        (
            {"images": [[cell(RED)], [cell(BLUE)]], "texts": [[{"user": "What?", "assistant": "A mug"}]] * 2},
            {"images": pa.list_(CELL)},
        ),
    ],
)
def test_one_dialogue_in_many_layouts(tmp_path, columns, types):
    data = Parquet(file=write(tmp_path / "a.parquet", {**columns, "source": ["x", "y"]}, types))
    assert [sample.turns for sample in data] == [ASKED] * 2
    assert [sample.images[0].open().size for sample in data] == [(4, 3), (5, 2)]
    assert len({image.key for image in data.images()}) == 2
    assert data.left_out() == []
    assert pickle.loads(pickle.dumps(data))[1].images[0].open().size == (5, 2)


def test_a_row_is_a_dialogue_a_caption_or_left_out(tmp_path):
    columns = {
        "id": ["a", "b", "c", "d", "e"],
        "img": [cell(RED), cell(RED), None, None, None],
        "talk": [TURNS, None, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], None, None],
        "text": [None, "a field", None, "no image", None],
    }
    file = write(tmp_path / "a.parquet", columns, {"img": CELL})
    knobs = {"image_column": "img", "dialogue_column": "talk", "caption_column": "text"}
    data = Parquet(file=file, questions=("What is shown?",), **knobs)
    assert [sample.id for sample in data] == ["a", "b", "c"]
    assert data[1].turns == (Turn("user", "<image>\nWhat is shown?"), Turn("assistant", "a field"))
    assert data[2].images == ()
    assert data.left_out() == [
        ("d", "a caption has no image"),
        ("e", "a row has neither a dialogue (talk) nor a caption (text)"),
    ]
    with pytest.raises(ValueError, match=r"a dialogue \(conversations, messages, texts\) nor .*columns: id, img"):
        len(Parquet(file=file))


def test_a_file_takes_the_place_of_missing_bytes(tmp_path):
    (tmp_path / "x.png").write_bytes(BLUE)
    cells = [
        cell(RED, "/creator/y.png"),
        cell(None, "x.png"),
        cell(None, "y.png"),
        cell(None, "/z.png"),
        cell(None, None),
    ]
    columns = {"image": cells, "caption": ["x"] * 5}
    data = Parquet(file=write(tmp_path / "a.parquet", columns, {"image": CELL}))
    assert [sample.images[0].open().size for sample in (data[0], data[1])] == [(4, 3), (5, 2)]
    for index, message in (
        (2, r"y\.png is not there"),
        (3, "set absolute_paths=true"),
        (4, "row-4/image holds no bytes"),
    ):
        with pytest.raises(ImageError, match=message):
            data[index].images[0].open()


def test_a_row_without_an_image_is_text(tmp_path):
    hi = [{"role": "user", "content": "Hi"}, TURNS[1]]
    for kind, values in ((CELL, [cell(RED), None]), (pa.binary(), [RED, None])):
        columns = {"image": values, "messages": [TURNS, hi]}
        data = Parquet(file=write(tmp_path / f"{kind.num_fields}.parquet", columns, {"image": kind}))
        assert [len(sample.images) for sample in data] == [1, 0]


def many(path, rows=12, group=4):
    columns = {"id": [f"{path.stem}{n}" for n in range(rows)], "image": [cell(RED)] * rows, "caption": ["x"] * rows}
    return write(path, columns, {"image": CELL}, row_group_size=group)


def test_a_row_group_that_cannot_be_read_costs_itself(tmp_path):
    path = tmp_path / "a.parquet"
    many(path)
    content = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    data = Parquet(file=str(path))
    assert [sample.id for sample in data] == [f"a{n}" for n in (*range(4), *range(8, 12))]
    assert data.left_out() == [("row-4", "a row group cannot be read")]


def test_a_row_group_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_table, "MAX_GROUP", 10)
    with pytest.raises(ValueError, match=r"a row group is too large: write the file with smaller ones"):
        len(Parquet(file=many(tmp_path / "a.parquet")))


def test_cut_and_missing_shards_are_named_and_the_rest_stands(tmp_path):
    for name in "abc":
        many(tmp_path / f"{name}.parquet")
    path = tmp_path / "b.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    data = Parquet(file=str(tmp_path / "{a,b,c,d}.parquet"))
    assert len(data) == 24
    assert data[12].id == "c0"
    assert [(id, reason) for id, reason in data.left_out()] == [
        ("b.parquet", "a shard cannot be read"),
        ("d.parquet", "a shard cannot be read"),
    ]
    assert "a file is no Parquet file, or is cut" in dict(data.skipped)["b.parquet"]
    with pytest.raises(ValueError, match=r"b\.parquet: a file is no Parquet file, or is cut"):
        len(Parquet(file=str(path)))


def test_flipped_bytes_are_a_sentence_or_a_sample(tmp_path):
    """Damage anywhere in a file without checksums: rows are read, or named; nothing else is raised."""
    path = tmp_path / "a.parquet"
    many(path)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        content = bytearray(whole)
        for place in torch.randint(len(whole), (4,), generator=generator):
            content[place] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(content)
        parquet_table._tables.clear()
        data = Parquet(file=str(path))
        try:
            size = len(data)
        except ValueError:
            continue
        for index in range(size):
            try:
                data[index].images[0].open()
            except (RecordError, ImageError):
                continue


def test_few_row_groups_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_table, "MAX_TABLES", 0)
    data = Parquet(file=many(tmp_path / "a.parquet", rows=40))
    for sample in data:
        sample.images[0].open()
    [table] = parquet_table._tables.values()
    assert len(table.tables) == 2


def test_tables_at_a_url(tmp_path):
    for name in "ab":
        many(tmp_path / f"{name}.parquet")
        MemoryFileSystem().pipe(f"/tables/{name}.parquet", (tmp_path / f"{name}.parquet").read_bytes())
    data = Parquet(file="memory://tables/*.parquet")
    assert len(data) == 24
    assert data[13].id == "b1"
    assert data[13].images[0].open().size == (4, 3)


def test_workers_read_what_one_process_reads(tmp_path):
    data = Parquet(file=many(tmp_path / "a.parquet"))
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
    assert [sample.id for sample in loader] == [f"a{n}" for n in range(12)]
