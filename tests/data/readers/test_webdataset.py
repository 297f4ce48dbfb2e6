"""Tar shards by offset, whole, cut and hostile."""

import pickle
import tarfile

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from mmrnn.data import ImageError, WebDataset
from mmrnn.io.errors import RecordError
from mmrnn.io.records import files, tar_shard
from mmrnn.io.records import index as record_index
from mmrnn.types import Turn
from tests.data.readers.shards import dialogue, image_bytes, write_tar

RED, BLUE = image_bytes("red"), image_bytes("blue", (5, 2), "JPEG")
CAPTION = [("c.png", RED), ("c.txt", " a red field\n")]


def ids(data):
    return [sample.id for sample in data]


def test_a_key_is_a_sample(tmp_path):
    file = write_tar(
        tmp_path / "a.tar",
        [
            ("./000.jpg", BLUE),
            ("./000.json", dialogue(image="coco/000.jpg")),
            ("./000.cls", b"7"),
            *CAPTION,
            ("d/e.json", {"id": "own", **dialogue("none", "no image")}),
            ("f.0.png", RED),
            ("f.1.jpg", BLUE),
            ("f.json", dialogue(question="<image> or <image>?", image=["f.1.jpg", "f.0.png"])),
            ("g.x.webp", RED),
            ("g.json", {"caption": "from img2dataset", "url": "http://x"}),
        ],
    )
    data = WebDataset(file=file)
    assert ids(data) == ["./000", "c", "own", "f", "g"]
    assert data[0].turns == (Turn("user", "<image>\nWhat?"), Turn("assistant", "A mug"))
    assert data[1].turns == (Turn("user", "<image>"), Turn("assistant", "a red field"))
    assert data[2].images == ()
    assert [image.key for image in data[3].images] == ["f/f.1.jpg", "f/f.0.png"]
    assert [image.open().size for image in data[3].images] == [(5, 2), (4, 3)]
    assert data[4].turns[1].text == "from img2dataset"
    assert data[1].images[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert data.left_out() == []
    assert len(list(data.images())) == 5
    assert pickle.loads(pickle.dumps(data))[0].images[0].open().size == (5, 2)


def test_a_question_is_chosen_by_the_id(tmp_path):
    members = [(f"{n}.{kind}", content) for n in range(20) for kind, content in (("png", RED), ("txt", "x"))]
    file = write_tar(tmp_path / "a.tar", members)
    asked = {sample.turns[0].text for sample in WebDataset(file=file, questions=("a", "b"))}
    assert asked == {"<image>\na", "<image>\nb"}


def test_images_are_read_when_they_are_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(record_index, "MIN_STORED", 0)
    file = write_tar(tmp_path / "a.tar", [*CAPTION, ("big.png", bytes(10**6)), ("big.txt", "zeros")])
    read = []
    original = files.read_range
    for module in (files, tar_shard):
        monkeypatch.setattr(module, "read_range", lambda *args: read.append(args[3]) or original(*args))
    sample = WebDataset(file=file)[1]
    assert sample.turns[1].text == "zeros"
    assert sum(read) < 50_000
    with pytest.raises(ImageError):
        sample.images[0].open()
    assert max(read) == 10**6


LINK, DEVICE, HARD = tarfile.TarInfo(), tarfile.TarInfo(), tarfile.TarInfo()
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
HARD.type, HARD.linkname = tarfile.LNKTYPE, "c.png"
DEVICE.type = tarfile.CHRTYPE
IRREGULAR = "a member of a tar shard is no regular file"
OUTSIDE = "a member of a tar shard has an absolute name, or one with .."
BAD = [
    ([("x.png", LINK), ("x.txt", "t")], IRREGULAR),
    ([("x.png", HARD), ("x.txt", "t")], IRREGULAR),
    ([("x.png", DEVICE), ("x.txt", "t")], IRREGULAR),
    ([("/x.png", RED), ("/x.txt", "t")], OUTSIDE),
    ([("../x.png", RED), ("../x.txt", "t")], OUTSIDE),
    ([("x.png", RED)], "a record has neither a dialogue (.json) nor a caption (.txt)"),
    ([("x.png", RED), ("x.txt", " ")], "a caption is empty"),
    ([("x.txt", "t")], "a caption has no image"),
    ([("x.png", RED), ("x.json", "{")], "a .json of a tar shard is no JSON"),
    ([("x.png", RED), ("x.json", "[" * 100_000)], "a .json of a tar shard is no JSON"),
    ([("x.png", RED), ("x.json", [1])], "a record must be an object"),
    ([("x.png", RED), ("x.txt", b"\xff")], "a text of a tar shard is not UTF-8"),
    ([("x.png", RED), ("x.json", dialogue(""))], "a reply is empty"),
    (
        [("x.png", RED), ("x.json", dialogue(question="<image><image>", image=["a.png", "b.png"]))],
        "a shard holds other images than a record names",
    ),
]


@pytest.mark.parametrize(("members", "reason"), BAD)
def test_a_bad_record_costs_itself(tmp_path, members, reason):
    data = WebDataset(file=write_tar(tmp_path / "a.tar", [*CAPTION, *members, ("z.png", RED), ("z.txt", "end")]))
    assert ids(data) == ["c", "z"]
    assert [why for _, why in data.left_out()] == [reason]


def test_names_of_any_length(tmp_path):
    name = "long/" * 100 + "é" * 200
    data = WebDataset(file=write_tar(tmp_path / "a.tar", [(f"{name}.png", RED), (f"{name}.txt", "t"), *CAPTION]))
    assert ids(data) == [name, "c"]
    assert data[0].images[0].open().size == (4, 3)


def shard(folder, number, records=5):
    members = [(f"{number}{n}.{kind}", x) for n in range(records) for kind, x in (("png", RED), ("txt", f"{n}"))]
    path = folder / f"s-{number}.tar"
    write_tar(path, members)
    return path


RECORD = 4 * 512
"""Bytes of a record of `shard`: header and content of an image and of a text."""


@pytest.mark.parametrize(
    ("bytes_left", "records", "detail"),
    [
        (3 * RECORD, 2, "it has no end mark at byte 6144"),
        (3 * RECORD + 200, 2, "it has no end mark at byte 6144"),
        (3 * RECORD + 512 + 70, 3, "'13.png' needs 6729 bytes of 6726"),
        (3 * RECORD + 1024, 3, "it has no end mark at byte 7168"),
        (5 * RECORD, 4, "it has no end mark at byte 10240"),
        (300, 0, "is no tar file"),
    ],
)
def test_a_cut_shard_is_named_and_the_rest_stands(tmp_path, bytes_left, records, detail):
    for number in range(3):
        shard(tmp_path, number)
    path = tmp_path / "s-1.tar"
    path.write_bytes(path.read_bytes()[:bytes_left])
    data = WebDataset(file=str(tmp_path / "s-{0..3}.tar"))
    assert len(data) == 10 + records
    faults = dict(data.skipped)
    assert "does not exist" in faults["s-3.tar"]
    cut = [reason for id, reason in faults.items() if id.startswith("s-1.tar")]
    assert len(cut) == 1
    assert detail in cut[0]
    assert data[5 + records].id == "s-2.tar/20"


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 5000, bytes(10_240), b"\x1f\x8b" + bytes(600)],
    ids=["empty", "text", "zeros", "gzip"],
)
def test_no_tar_file_is_one_sentence(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar (is no tar file|is compressed|holds no valid record)") as raised:
        len(WebDataset(file=str(tmp_path / "a.tar")))
    assert "\n" not in str(raised.value)


def octal(number):
    return f"{number:011o}\0".encode()


def patched(content, header, size):
    """Content with another size in the header at a byte, and its checksum."""
    block = bytearray(content[header : header + 512])
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return content[:header] + bytes(block) + content[header + 512 :]


SECOND = [("d.png", RED), ("d.txt", "second")]


@pytest.mark.parametrize(
    ("size", "reason", "left"),
    [
        (octal(8**10), "a tar shard is cut", ["c", "d"]),
        (b"\xff" * 11 + b"\x00", "a tar shard is damaged", ["c"]),  # -256
        (b"\x80" + b"\x7f" * 11, "a tar shard is cut", ["c", "d"]),
        (b"garbage here", "a tar shard is damaged", ["c"]),
    ],
)
def test_a_size_that_cannot_be_true(tmp_path, size, reason, left):
    path = tmp_path / "a.tar"
    write_tar(path, [*CAPTION, *SECOND, ("x.png", RED), ("x.txt", "t")])
    content = path.read_bytes()
    path.write_bytes(patched(content, content.index(b"x.png"), size))
    data = WebDataset(file=str(path))
    assert ids(data) == left
    assert [why for _, why in data.left_out()] == [reason]


def test_a_header_that_claims_a_name_of_gigabytes(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [*CAPTION, *SECOND, ("n" * 300 + ".png", RED)])
    content = path.read_bytes()
    path.write_bytes(patched(content, 2 * RECORD, octal(2**30)))
    data = WebDataset(file=str(path))
    assert ids(data) == ["c"]
    assert [why for _, why in data.left_out()] == ["a tar shard is damaged"]


DAMAGED = 60


def test_flipped_bytes_are_a_sentence_or_a_sample(tmp_path):
    """Damage in headers whose checksums fit: records are read, or named; nothing else is raised, and all ends."""
    path = tmp_path / "a.tar"
    write_tar(
        path, [(f"{n}{'x' * 120 * (n % 2)}.{kind}", x) for n in range(6) for kind, x in (("png", RED), ("txt", "t"))]
    )
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(DAMAGED):
        content = bytearray(whole)
        for block in torch.randint(len(whole) // 512, (3,), generator=generator).tolist():
            place = 512 * block
            within, value = torch.randint(512, (2,), generator=generator).tolist()
            content[place + within] = value % 256
            header = content[place : place + 512]
            header[148:156] = b" " * 8
            content[place + 148 : place + 156] = f"{sum(header):06o}\0 ".encode()
        path.write_bytes(content)
        data = WebDataset(file=str(path))
        try:
            size = len(data)
        except ValueError:
            continue
        for index in range(size):
            try:
                data[index].images[0].open()
            except ImageError:
                continue


def test_a_shard_that_goes_during_the_run_is_named(tmp_path):
    data = WebDataset(file=str(shard(tmp_path, 0)))
    image = data[0].images[0]
    (tmp_path / "s-0.tar").unlink()
    files._open_files.files.clear()
    with pytest.raises(RecordError, match=r"is not there any more \(.*s-0\.tar\)"):
        data[1]
    with pytest.raises(ImageError, match=r"is not there any more"):
        image.open()


def test_shards_at_a_url(tmp_path):
    remote = MemoryFileSystem()
    for number in range(2):
        remote.pipe(f"/bucket/s-{number}.tar", shard(tmp_path, number).read_bytes())
    for pattern in ("memory://bucket/s-{0..1}.tar", "memory://bucket/*.tar"):
        data = WebDataset(file=pattern)
        assert ids(data) == [f"s-{number}.tar/{number}{n}" for number in range(2) for n in range(5)]
        assert data[7].images[0].open().size == (4, 3)
    data = WebDataset(file="memory://bucket/s-{0..5}.tar")
    assert len(data) == 10
    assert len(data.left_out()) == 4
    with pytest.raises(ImportError, match=r"gs://x/a\.tar needs a package: .*gcsfs"):
        len(WebDataset(file="gs://x/a.tar"))
    with pytest.raises(ValueError, match=r"none://x/a\.tar cannot be read: Protocol not known: none"):
        len(WebDataset(file="none://x/a.tar"))


def test_the_index_of_a_url_is_kept_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record_index, "MIN_STORED", 0)
    MemoryFileSystem().pipe("/kept/s.tar", shard(tmp_path, 3).read_bytes())
    knobs = {"file": "memory://kept/s.tar", "index_folder": str(tmp_path / "i")}
    assert len(WebDataset(**knobs)) == 5
    monkeypatch.setattr(tar_shard.TarShard, "scan", None)
    assert len(WebDataset(**knobs)) == 5


def test_workers_read_what_one_process_reads(tmp_path):
    for number in range(2):
        shard(tmp_path, number)
    data = WebDataset(file=str(tmp_path / "*.tar"))
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
    assert [sample.id for sample in loader] == ids(data)
