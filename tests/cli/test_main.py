"""The command line: output, exit codes, and how it reports mistakes."""

import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import mmrnn
from mmrnn.cli.main import VERBS, main
from mmrnn.cli.options import Forward
from mmrnn.config.error import ConfigError
from mmrnn.io.lock import LOCK
from mmrnn.training.ends import StoppedRun

TINY = "model=visualrwkv6_tiny"


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """A training that only records its calls; `runs.fault` is raised in the run of seed 13."""
    noted = ModuleType("mmrnn.training.run")
    noted.calls, noted.fault = [], None

    def train(cfg, out: Path, choices, world):
        assert out.is_dir()
        assert world.size == 1
        assert choices["model"] in TINY or choices["model"] == "llava15_tiny"
        noted.calls.append((cfg, out))
        if noted.fault is not None and cfg.seed == 13:
            raise noted.fault

    noted.train = train
    monkeypatch.setitem(sys.modules, "mmrnn.training.run", noted)
    monkeypatch.chdir(tmp_path)
    return noted


def run_cli(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(capsys, arguments):
    code, out, _ = run_cli(capsys, *arguments)
    assert code == 0
    assert all(f"\n  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys, verb):
    code, out, _ = run_cli(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: mmrnn {verb}")
    assert "--config-dir DIR" in out
    assert "\nexamples:\n" in out


def test_help_loads_no_heavy_library():
    code = f"""
import sys
from mmrnn.cli.main import main
for verb in {[*VERBS]}:
    main([verb, "--help"])
    assert not {{"torch", "hydra", "numpy", "PIL"}} & set(sys.modules), verb
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_describes_every_option_with_its_default(capsys, verb):
    parser = import_module(f"mmrnn.cli.{verb}").parser()
    out = " ".join(run_cli(capsys, verb, "--help")[1].split())
    for action in parser._actions:
        assert action.help, action.dest
        takes_a_value = action.nargs != 0 and not isinstance(action, Forward)
        if action.option_strings and takes_a_value:
            _, _, text = out.partition(f"{action.option_strings[-1]} {action.metavar}")
            assert "(default: " in text.partition(" --")[0], action.option_strings


def test_version(capsys):
    assert run_cli(capsys, "--version") == (0, mmrnn.__version__ + "\n", "")


def test_list(capsys):
    code, out, _ = run_cli(capsys, "list")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {
        "encoder",
        "connector",
        "backbone",
        "scan",
        "model",
    }
    code, out, _ = run_cli(capsys, "list", "scan")
    assert [line.split()[0] for line in out.splitlines()][:2] == ["bidirectional", "forward"]


def test_list_of_further_cards(capsys, tmp_path):
    (tmp_path / "connector").mkdir()
    (tmp_path / "connector" / "mine.yaml").write_text("# a connector of mine\n_target_: mine.Mine\n")
    _, out, _ = run_cli(capsys, "list", "connector", "--config-dir", str(tmp_path))
    assert "a connector of mine" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "trian: no such verb; did you mean 'train'?"),
        (["list", "conector"], "conector: no such group; did you mean 'connector'?"),
        (["show", TINY, "connector=qformr"], "there is no card connector/qformr; did you mean 'qformer'?"),
        (["show", TINY, "conector=mlp"], "conector: no such group or key; did you mean 'connector'?"),
        (["show", TINY, "connector.bais=true"], "connector.bais: no such knob; did you mean 'bias'?"),
        (["train", TINY, "backbone.depth=deep"], "backbone.depth: expected int, got 'deep'"),
        (["train", TINY, "connector"], "connector: an override reads key=value"),
        (
            ["train", TINY, "connector=linear,mlp"],
            "connector=linear,mlp: several values in one run; sweep over them with -m",
        ),
        (["train", TINY, "--config-dir"], "--config-dir: expected a value behind it"),
        (["train", TINY, "--multirum"], "--multirum: train has no such option; did you mean '--multirun'?"),
        (["train", TINY, "--cfg", "jobs"], "--cfg: expected one of job, hydra, all; got 'jobs'; did you mean 'job'?"),
        (["list", "--config-dir="], "--config-dir: expected a path, got ''"),
        (["ask"], "ask: missing QUESTION (see `mmrnn ask --help`)"),
        (["ask", "what?", "--jsno"], "--jsno: ask has no such option; did you mean '--json'?"),
        (["ask", "a.png", "what?", "--max-new-tokens", "٣"], "--max-new-tokens: expected a whole number of at least 1"),
        (["ask", "a.png", "what?", "trusted=[a b]"], "trusted=[a b]: name packages beside mmrnn whose classes"),
        (["ask", "a.png", "what?", "trust=[a]"], "trust=[a]: no such setting; trusted=[PACKAGE] names packages"),
        (["convert", "a.pth", "b.pth", "c=1", "--format", "rwkv6"], "c=1: a file of tensors has no configuration"),
        (["train", TINY, "--config-dir", "/none"], "/none: there is no such folder of cards"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(capsys, arguments, sentence):
    code, out, err = run_cli(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"mmrnn: {sentence}") or sentence in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys):
    code, _, err = run_cli(capsys, "--debug", "trian")
    assert code == 2
    assert "Traceback" in err


def test_show(capsys):
    code, out, _ = run_cli(capsys, "show", TINY)
    assert code == 0
    for word in ("encoder", "connector", "backbone", "RWKV6", "tokens", "state", "parameters"):
        assert word in out


def test_show_of_a_transformer_counts_the_cache_by_the_token(capsys):
    _, out, _ = run_cli(capsys, "show", "model=llava15_tiny")
    assert "a token and sample" in out


def test_a_run(capsys, runs, tmp_path):
    code, _, _ = run_cli(capsys, "train", TINY, "seed=3")
    [(cfg, out)] = runs.calls
    assert code == 0
    assert cfg.seed == 3
    assert out.parent == tmp_path / "runs"
    assert cfg.out == str(out)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_several_processes_without_ranks_are_refused(capsys, runs, monkeypatch, name):
    """Each would be a whole training of its own."""
    monkeypatch.setenv(name, "1")
    assert run_cli(capsys, "train", TINY)[0] == 0
    monkeypatch.setenv(name, "2")
    code, out, err = run_cli(capsys, "train", TINY)
    assert (code, out) == (2, "")
    assert f"has started 2 processes ({name}), but RANK is not set; start them with torchrun or srun" in err
    assert len(runs.calls) == 1


def test_a_run_resumes_in_its_folder(capsys, runs, tmp_path):
    run_cli(capsys, "train", TINY, "out=here")
    assert runs.calls[0][1] == tmp_path / "here"


def test_a_second_run_overwrites_nothing_of_the_first(capsys, runs, tmp_path):
    run_cli(capsys, "train", TINY, "out=here")
    assert [path.name for path in (tmp_path / "here").iterdir()] == [LOCK]  # a new folder is marked
    (tmp_path / "here" / LOCK).rename(tmp_path / "here" / "config.yaml")
    runs.fault = ConfigError("out: here holds a run of another configuration")
    assert run_cli(capsys, "train", TINY, "seed=13", "out=here")[0] == 2
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["config.yaml"]


def test_a_run_that_fails(capsys, runs):
    runs.fault = RuntimeError("the disk is full")
    code, _, err = run_cli(capsys, "train", TINY, "seed=13")
    assert code == 1
    assert err == "mmrnn: RuntimeError: the disk is full (--debug shows where)\n"


def test_an_interrupted_run_says_how_to_resume(capsys, runs, tmp_path):
    runs.fault = KeyboardInterrupt()
    code, _, err = run_cli(capsys, "train", TINY, "seed=13", "out=here")
    assert code == 130
    assert err == f"mmrnn: stopped; resume with: mmrnn train out={tmp_path}/here {TINY} seed=13\n"


def test_a_stopped_run_ends_with_the_code_of_its_signal(capsys, runs, tmp_path):
    runs.fault = StoppedRun(signal.SIGTERM)
    code, _, err = run_cli(capsys, "train", TINY, "seed=13", "out=here")
    assert code == 143
    assert err == f"mmrnn: stopped by SIGTERM; resume with: mmrnn train out={tmp_path}/here {TINY} seed=13\n"


def test_options_and_overrides_of_hydra_are_passed_on():
    from mmrnn.cli.train import parser

    options = parser().parse(["a=1,2", "-m", "+b=-1", "-cd", "cards", "~c", "--cfg=job", "-p", "data", "--info"])
    assert options.overrides == ["a=1,2", "+b=-1", "~c"]
    assert options.hydra == ["-m", "--cfg", "job", "-p", "data", "--info"]
    assert options.dirs == [Path("cards")]


def test_hydra_shows_the_configuration(capsys, runs):
    code, out, _ = run_cli(capsys, "train", "--cfg", "job", TINY, "seed=3")
    assert code == 0
    assert "seed: 3" in out
    assert runs.calls == []
