"""`mmrnn bench` on tiny sizes: output, skipped contenders, usage errors."""

import json
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO

import pytest
import torch
from rich.console import Console

from mmrnn.bench import operator, selective_scan, stream, timing
from mmrnn.bench.peers import Shape, make_rwkv6, make_rwkv_package
from mmrnn.bench.timing import BenchConfig, Row, Unavailable, compare
from mmrnn.cli.bench import PARTS, table
from mmrnn.cli.main import main
from mmrnn.types import Sequence

QUICK = BenchConfig(quick=True, seconds=0.0)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nothing_installed(monkeypatch):
    """Hide optional packages."""
    known = timing.find_spec
    absent = ("fla", "rwkv", "transformers", "matplotlib")
    monkeypatch.setattr(timing, "find_spec", lambda name: None if name in absent else known(name))


@pytest.mark.slow
def test_everything_runs_and_is_written(elsewhere, capsys):
    assert main(["bench", "--quick", "--out", "here"]) == 0
    result = json.loads((elsewhere / "here" / "bench.json").read_text())
    assert result["quick"]
    rows = result["rows"]
    assert {row["part"] for row in rows} == {*PARTS}
    assert all(row["seconds"] > 0 for row in rows)
    for row in rows:
        others = {other["name"] for other in rows if other["case"] == row["case"]} - {row["name"]}
        assert set(row["speedup"]) == others
    names = {row["name"] for row in rows}
    out = capsys.readouterr().out
    missing = result["skipped"]
    assert all(f"skipped: {note}" in out for note in missing)
    if not missing:
        assert {"fla naive", "rwkv package", "transformers Llama", "Llama, static cache", "timm"} <= names
        assert all((elsewhere / "here" / f"{part}.png").stat().st_size > 1000 for part in ("decode", "stream"))
    curves = [row for row in rows if row["context"] is not None and row["name"] == "mmrnn RWKV-6"]
    assert len(curves) > 1
    assert len({row["megabytes"] for row in curves}) == 1, "the state of an RNN does not grow"


@pytest.mark.usefixtures("nothing_installed")
def test_missing_packages_are_skipped_by_name(elsewhere, capsys, monkeypatch):
    for part in ("operator", "stream"):
        monkeypatch.setattr(f"mmrnn.bench.{part}.peak_megabytes", lambda *_: 1.5)  # a process a row: test_memory
    assert main(["bench", "--quick"]) == 0
    result = json.loads((elsewhere / "bench" / "bench.json").read_text())
    assert {row["part"] for row in result["rows"]} == {*PARTS}
    ours = {"mmrnn chunked", "mmrnn RWKV-6", "mmrnn transformer", "mmrnn packed", "timm"}
    ours |= {"VisualRWKV-6", "VisualRWKV-7", "LLaVA-1.5", "LLaVA-1.5, cache copied, all logits"}
    assert {row["name"] for row in result["rows"]} - {"mmrnn cpu"} == ours
    skipped = {note.split(":")[0] for note in result["skipped"]} - {"mmrnn cpu"}
    transformers = {"transformers chunked", "transformers scan", "transformers Llama"}
    assert skipped == {*transformers, "fla naive", "rwkv package", "plots"}
    assert "skipped: rwkv package: rwkv is not installed (pip install rwkv)" in capsys.readouterr().out
    assert not (elsewhere / "bench" / "decode.png").exists()


def test_named_parts_only(elsewhere):
    assert main(["bench", "tower", "--quick", "--out=here"]) == 0
    result = json.loads((elsewhere / "here" / "bench.json").read_text())
    assert {row["part"] for row in result["rows"]} == {"tower"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["operater"],
            "PART: expected one of operator, prefill, decode, training, tower, stream, headline; "
            "got 'operater'; did you mean 'operator'?",
        ),
        (
            ["--xyzzy"],
            "--xyzzy: bench has no such option; "
            "it has --config-dir, --debug, --help, --quick, --device, --threads, --precision, --prompt, --fps, --out",
        ),
        (["--threads", "two"], "--threads: expected a whole number of at least 1, got 'two'"),
        (["--threads=0"], "--threads: expected a whole number of at least 1, got '0'"),
        (["--fps", "0.5"], "--fps: expected a whole number of at least 1, got '0.5'"),
        (["--out"], "--out: expected a value behind it"),
        (["--out", "file"], "--out: file is a file; name a folder"),
        (["--device", "tpu"], "device=tpu: must be one of cpu, cuda, xpu, npu, mps, with a number as in cuda:1"),
    ],
)
def test_wrong_usage_is_one_sentence(elsewhere, capsys, arguments, message):
    (elsewhere / "file").touch()
    assert main(["bench", *arguments]) == 2
    stderr = capsys.readouterr().err
    assert stderr.removesuffix(" (see `mmrnn bench --help`)\n").strip() == f"mmrnn: {message}"
    assert [path.name for path in elsewhere.iterdir()] == ["file"]


def test_a_stream_beside_a_cache_that_grows(elsewhere, capsys, monkeypatch):
    monkeypatch.setattr(stream, "peak_megabytes", lambda run, small, full: float(full[2]))
    monkeypatch.setattr(stream, "MAX_CACHE", 700_000)
    assert main(["bench", "stream", "--quick", "--fps=1"]) == 0
    rows = json.loads((elsewhere / "bench" / "bench.json").read_text())["rows"]
    found = {(row["name"], row["minutes"]): row for row in rows}
    ours, theirs = "mmrnn RWKV-6", "mmrnn transformer"
    assert [*found] == [(theirs, 0.05), (ours, 0.05), (ours, 0.1)]
    assert found[ours, 0.05]["megabytes"] == found[ours, 0.1]["megabytes"]
    assert found[theirs, 0.05]["megabytes"] == pytest.approx(2 * 2 * 128 * 4 * 3 * 65 / 1e6, rel=0.01)
    assert [row["process_megabytes"] for row in rows] == [3, 3, 6]
    out = capsys.readouterr().out
    assert "frames/s" in out
    assert find_spec("matplotlib") is None or (elsewhere / "bench" / "stream.png").stat().st_size > 1000
    assert "skipped: mmrnn transformer quick, 0.1 minutes: a cache of 0.0 GB is more than" in out


@torch.no_grad()
def test_a_frame_behind_a_cache_is_read_at_its_position():
    model = stream.make_model(stream.TRANSFORMER, Shape.of(QUICK), "fp32", "cpu")
    state = stream.state_after_frames(model, 3)
    after = stream.read_frame(model, state)()
    assert int(after.shared["next_position"]) == 4 * stream.POSITIONS
    assert after.nbytes - state.nbytes == stream.cache_bytes(model, 1)
    stream.watch(stream.MMRNN, Shape.of(QUICK), 3)


def test_runs_alternate_and_ratios_are_paired(monkeypatch):
    now, turns = [0.0], []
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])

    def contender(name, costs):
        costs = iter(costs)

        def work():
            turns.append(name)
            now[0] += next(costs)

        return work

    # The machine is ten times slower in the second round: each ratio stays.
    contenders = {"a": contender("a", [9, 2, 20, 2]), "b": contender("b", [9, 1, 10, 1])}
    a, b = compare("part", "case", contenders, QUICK, megabytes={"a": 3.0})
    assert turns == ["a", "b"] * 4
    assert (a.seconds, b.seconds) == (2, 1)
    assert (a.speedup, b.speedup) == ({"b": 0.5}, {"a": 2.0})
    assert (a.megabytes, b.megabytes) == (3.0, None)


def test_a_table_has_no_empty_column_and_cuts_nothing():
    case = "model=visualrwkv6_1b6 backbone.scan=multidirectional bf16, a prompt of 4,096"
    first = Row("preset", case, "first token", 2.0, {}, None, megabytes=3200.25, memory_kind="weights and state")
    token = replace(first, name="a token", seconds=0.1)
    made = table("preset", [first, token])
    assert [column.header for column in made.columns] == ["case", "name", "ms", "MB of weights and state", "tokens/s"]
    assert [[*column.cells] for column in made.columns[1:]] == [
        ["first token", "a token"], ["2000.00", "100.00"], ["3200.2"] * 2, ["", "10.0"]
    ]  # fmt: skip
    mixed = table("decode", [first, replace(token, memory_kind="cache", speedup={"first token": 20.0})])
    assert [column.header for column in mixed.columns] == ["case", "name", "ms", "speedup", "MB"]
    assert [*mixed.columns[-1].cells] == ["3200.2 (weights and state)", "3200.2 (cache)"]
    console = Console(width=60, record=True, file=StringIO())
    console.print(made)
    assert "…" not in console.export_text()


def test_a_skipped_contender_is_noted_once():
    config, contenders = replace(QUICK, skipped=[]), {}

    def absent():
        raise Unavailable("not here")

    for _ in range(2):
        config.try_add(contenders, "other", absent)
    config.try_add(contenders, "ours", lambda: print)
    assert contenders == {"ours": print}
    assert config.skipped == ["other: not here"]


@pytest.mark.slow
@pytest.mark.parametrize("name", operator.MULTIPLY_ADDS)
def test_the_other_recurrence_computes_the_same(name):
    pytest.importorskip("fla")
    tensors = operator.make_inputs(name, (2, 9, 3, 8))
    ours, theirs = (operator.implementation(name, backend)(*tensors) for backend in ("reference", operator.FLA))
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.slow
def test_the_scan_of_transformers_computes_the_same():
    pytest.importorskip("transformers")
    tensors = selective_scan.make_inputs((2, 9, 5, 4))
    ours, theirs = (selective_scan.implementation(name)(*tensors) for name in ("reference", selective_scan.PEER))
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.slow
def test_the_rwkv_package_computes_the_same():
    pytest.importorskip("rwkv")
    model = make_rwkv6(Shape.of(QUICK))
    ids = torch.randint(0, 256, (1, 7))
    theirs, _ = make_rwkv_package(model, "fp32").forward(ids[0].tolist(), None)
    with torch.no_grad():
        ours = model.head(model(Sequence(ids))[0][0, -1])
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.slow
def test_memory():
    from mmrnn.bench.memory import peak_megabytes
    from mmrnn.io.process_memory import can_reset_peak

    if not can_reset_peak():
        pytest.skip("the peak of a process is measured on Linux only")
    megabytes = peak_megabytes(torch.ones, (1, 10), (1, 20_000_000))
    assert 75 < megabytes < 110, "of 1e6 bytes: 80 are written"
