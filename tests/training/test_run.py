"""A whole run at a small size leaves what it promises."""

import json

import pytest
import torch

import mmrnn
from mmrnn.cli import ask, report
from mmrnn.config.error import ConfigError
from mmrnn.data.image import ImageError
from mmrnn.evaluation.reports.run_folder import read_log, read_result
from mmrnn.io import jsonl
from mmrnn.io.processor import processor_name
from mmrnn.io.versions import commit
from mmrnn.model.build import build
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.run import check_same, train
from mmrnn.training.saving.run_clock import CLOCK
from tests.training.small_run import config, weights_of


def test_a_run_leaves_a_model_a_report_and_a_result(tmp_path):
    asked = config("evaluate.distance=[5]", "evaluate.shots=[1]", "data.kinds=[count,colour]")
    error = train(asked, tmp_path / "run", {"connector": "linear"})
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["objective"] == error
    plain_splits = {split: rows for split, rows in result["accuracy"].items() if split in ("scenes", "drawings")}
    assert set(result["accuracy"]) == {
        f"{split}{more}" for split in plain_splits for more in ("", "_after_5", "_shots_1")
    }
    means = [sum(row["accuracy"] for row in rows.values()) / len(rows) for rows in plain_splits.values()]
    assert error == pytest.approx(1 - sum(means) / len(means))
    row = result["accuracy"]["scenes"]["count"]
    assert set(row) == {"accuracy", "chance", "majority", "blind", "right", "total"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 9
    assert "<polyline" in page
    assert not (tmp_path / "run" / "checkpoints").exists()
    records = jsonl.records(tmp_path / "run" / "log.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert "accuracy" in records[2]
    lines = (tmp_path / "run" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == sum(row["total"] for kinds in result["accuracy"].values() for row in kinds.values())
    for answer in map(json.loads, lines):
        [image] = answer["images"]
        assert answer["id"].startswith(f"{image}/")
        assert answer["right"] is (answer["reply"] == answer["truth"])
    # The same command once more finds that nothing is left to do.
    assert train(asked, tmp_path / "run", {"connector": "linear"}) == error


def test_questions_behind_examples_alone_end_a_run(tmp_path):
    asked = ("evaluate.shots=[1]", "evaluate.samples=4", "evaluate.every=0", "stage.instruct.steps=1")
    train(config(*asked, "data.kinds=[count]"), tmp_path)
    assert {"scenes", "scenes_shots_1"} <= set(read_result(tmp_path)["accuracy"])


def test_a_result_says_with_what_and_how_fast_it_came_about(tmp_path):
    train(config("evaluate.samples=3", "evaluate.every=0"), tmp_path)
    result = read_result(tmp_path)
    assert result["version"] == mmrnn.__version__
    assert result["commit"] == commit()
    assert result["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert (result["processor"], result["processes"]) == (processor_name(), 1)
    assert result["threads"] == torch.get_num_threads()
    records = read_log(tmp_path)
    assert result["tokens"] == sum(record["tokens"] for record in records) > 6 * 4 * 16
    seconds = sum(record["measured"]["seconds"] for record in records)
    assert result["samples_per_second"] == pytest.approx(6 * 4 / seconds, rel=0.01)
    assert result["seconds"] > seconds
    assert result["peak_memory_gib"] > 0.1
    state = build(config()).backbone.state(1).layers[0]
    assert result["state_bytes"] > state["wkv"].nbytes > 0
    assert result["state_bytes_per_token"] == 0
    assert len(result["data_fingerprint"]) == 16
    assert not (tmp_path / CLOCK).exists()


def test_the_same_seed_repeats_a_run_and_another_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(config(f"seed={seed}", "evaluate.samples=0", "stage.instruct.steps=2"), tmp_path / name)
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_stage_can_have_a_schedule_and_an_optimizer_of_its_own(tmp_path):
    own = ("+schedule@stage.align.schedule=linear", "+optimizer@stage.align.optimizer=muon")
    steps = ("stage=align_then_instruct", "stage.align.steps=2", "stage.instruct.steps=2", "stage.align.batch_size=4")
    train(config("evaluate.samples=0", *steps, *own, "schedule.min_lr=0.0"), tmp_path)
    rates = [record["lr"] for record in jsonl.records(tmp_path / "log.jsonl")]
    assert rates == pytest.approx([(1e-3 + 1e-5) / 2, 1e-5, 1e-3 / 2, 0])


CALM = ("stage.instruct.steps=3", "stage.instruct.lr=1e-4", "optimizer.eps=1e-5")
"""Few small steps; Adam with its usual eps makes whole steps of what is rounding alone."""


def test_accumulation_gives_the_same_model(tmp_path):
    common = ("evaluate.samples=0", "backbone.dropout=0.0", *CALM)
    train(config(*common), tmp_path / "whole")
    train(config(*common, "stage.instruct.grad_accum_steps=2"), tmp_path / "split")
    whole, split = weights_of(tmp_path / "whole"), weights_of(tmp_path / "split")
    assert all((whole[name] - split[name]).abs().max() < 2e-5 for name in whole)


def test_packed_rows_give_the_same_model(tmp_path):
    common = ("evaluate.samples=0", "backbone.dropout=0.0", *CALM)
    train(config(*common), tmp_path / "plain")
    train(config(*common, "batching=packed"), tmp_path / "packed")
    plain_, packed = weights_of(tmp_path / "plain"), weights_of(tmp_path / "packed")
    assert all((plain_[name] - packed[name]).abs().max() < 2e-5 for name in plain_)


def test_frozen_features_are_cached_and_change_nothing(tmp_path):
    common = ("encoder=conv_tiny", "evaluate.samples=0", "backbone.dropout=0.0", "stage.instruct.steps=3")
    train(config(*common), tmp_path / "cached")
    train(config(*common, "feature_cache_gib=0"), tmp_path / "live")
    cached, live = weights_of(tmp_path / "cached"), weights_of(tmp_path / "live")
    assert all((cached[name] - live[name]).abs().max() < 2e-3 for name in cached)


def test_mistakes_leave_nothing_behind(tmp_path):
    train(config("evaluate.samples=0"), tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"another configuration \(it differs in seed\); repeat its overrides.*choose another folder"
    ):
        train(config("evaluate.samples=0", "seed=5"), tmp_path / "run")
    with pytest.raises(ValueError, match="fits no parameter"):
        train(config("stage.instruct.train=[backbone.nothing.*]"), tmp_path / "wrong")
    with pytest.raises(TrainingError, match=r"lower the learning rate \(1e\+30\)"):
        train(
            config("stage.instruct.lr=1e30", "stage.instruct.max_grad_norm=0", "stage.instruct.steps=40"),
            tmp_path / "nan",
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(config(), folder, {"connector": "linear", "data": "pictures"})
    return folder


def test_asking_a_trained_model(trained, tmp_path, capsys, monkeypatch):
    from PIL import Image

    image = tmp_path / "image.png"
    Image.new("RGB", (200, 100), "red").save(image)
    assistant = mmrnn.load(trained)
    reply = assistant.ask(image, "what is this?", max_new_tokens=5)
    assert reply == assistant.ask(Image.open(image), "what is this?", max_new_tokens=5)
    assert isinstance(assistant.ask(None, "what is this?", max_new_tokens=5), str)
    monkeypatch.chdir(tmp_path)
    ask.main([str(image), "what is this?", "--max-new-tokens", "5", "--run", str(trained)])
    assert capsys.readouterr().out.strip() == reply
    with pytest.raises(ConfigError, match="no finished run in runs"):
        ask.main([str(image), "what is this?"])
    with pytest.raises(ConfigError, match=r"missing\.png is not there"):
        ask.main(["missing.png", "what is this?", "--run", str(trained)])
    with pytest.raises(ImageError, match="not there"):
        assistant.ask("missing.png", "what?")
    with pytest.raises(ConfigError, match="name an image and a question"):
        ask.main([str(image)])


def test_a_model_on_disk_is_not_trusted(trained, tmp_path):
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("mmrnn.backbones.RWKV6", "os.system"))
    with pytest.raises(ConfigError, match="outside mmrnn"):
        mmrnn.load(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        mmrnn.load(tmp_path)
    with pytest.raises(ConfigError, match="holds no model"):
        mmrnn.load(tmp_path / "nowhere")


def test_comparing_runs(tmp_path, capsys):
    for index, connector in enumerate(("linear", "mlp")):
        train(config("evaluate.samples=9", f"connector={connector}"), tmp_path / str(index), {"connector": connector})
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "log.jsonl").write_text("")
    report.main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "not finished" in shown
    table = (tmp_path / "comparison.md").read_text()
    assert table.splitlines()[0].startswith("| connector | parameters |")
    assert "| mlp |" in table
    assert "## Differences from connector=linear" in table
    assert table.count("not paired") == 0
    assert table.count("| baseline |") == 3
    assert "<rect" in (tmp_path / "comparison.html").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        report.main([str(tmp_path / "empty")])


def test_a_run_can_keep_what_it_trained_alone(tmp_path):
    """The rest is in the base that it started from; without one it does not even begin."""
    base = mmrnn.build(config())
    mmrnn.save(base, tmp_path / "base")
    short = ("save_frozen=false", "evaluate.samples=0", "stage.instruct.train=[connector]", "stage.instruct.steps=2")
    with pytest.raises(ValueError, match="names no base for it"):
        train(config(*short), tmp_path / "run")
    train(config(*short, f"weights.model={tmp_path / 'base'}"), tmp_path / "run")
    kept, model = weights_of(tmp_path / "run"), mmrnn.load(tmp_path / "run").model
    assert kept
    assert all(".connector." in name for name in kept)
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept.get(name, base.state_dict()[name])), name
    assert not all(torch.equal(kept[name], base.state_dict()[name]) for name in kept)


def test_ranks_with_other_overrides_are_refused():
    class Two(World):
        def gather(self, value):
            return [value, value | {"seed": "5"}]

    check_same({"seed": 5, "data": {"file": "a"}}, Two(0, 2))
    with pytest.raises(ConfigError, match=r"rank 1 has another configuration than rank 0 \(it differs in seed\)"):
        check_same({"seed": 4, "data": {"file": "a"}}, Two(0, 2))
