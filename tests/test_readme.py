"""The README is correct: its commands compose, its Python runs, its links exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import mmrnn
from mmrnn.cli.main import main
from mmrnn.config.compose import compose, sweep_jobs
from mmrnn.config.validate import check, check_eval

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def commands():
    lines = [line.partition("  #")[0] for block in blocks("bash") for line in block.splitlines()]
    words = [shlex.split(part) for line in lines for part in line.split("&&")]
    words = [command[command.index("mmrnn") :] if command[:1] == ["torchrun"] else command for command in words]
    return [command[1:] for command in words if command[:1] == ["mmrnn"]]


@pytest.mark.parametrize("command", [c for c in commands() if c[0] in ("list", "show")], ids=" ".join)
def test_commands_that_show(command, capsys):
    assert main(command) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "train"], ids=" ".join)
def test_commands_that_train_compose_and_fit(command):
    overrides = [word for word in command[1:] if not word.startswith("-")]
    for job in sweep_jobs(*overrides) if "-m" in command else [overrides]:
        check(compose(*job))


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "eval"], ids=" ".join)
def test_commands_that_evaluate_compose_and_fit(command):
    assert [check_eval(compose(*job, config="eval")) for job in sweep_jobs(*command[1:], config="eval")]


def test_the_other_commands_are_known():
    assert {command[0] for command in commands()} >= {"ask", "eval", "report", "train", "list", "show"}


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code):
    exec(compile(code, str(README), "exec"), {})


def test_the_mistake_is_reported_as_shown(capsys):
    (shown,) = blocks("console")
    command, _, expected = shown.partition("\n")
    assert main(shlex.split(command)[2:]) == 2
    assert capsys.readouterr().err.strip() == expected.strip()


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_somewhere(page):
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", (README.parent / page).read_text(encoding="utf-8")):
        assert (README.parent / path).exists(), path


def test_the_chinese_page_has_the_same_sections_and_code():
    chinese = README.with_name("README.zh.md").read_text(encoding="utf-8")
    fences = [re.findall(r"```.*?```", text, re.S) for text in (TEXT, chinese)]
    assert fences[0] == fences[1]
    headings = [re.findall(r"^#+", re.sub(r"```.*?```", "", text, flags=re.S), re.M) for text in (TEXT, chinese)]
    assert headings[0] == headings[1]


def test_the_citation_names_the_version():
    citation = yaml.safe_load(README.with_name("CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mmrnn.__version__


def test_the_first_section_of_the_changelog_is_this_version():
    changes = README.with_name("CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.search(r"^## (\S+) \((.+)\)$", changes, re.M).groups()
    assert version == mmrnn.__version__
    assert re.fullmatch(r"not released|20\d\d-\d\d-\d\d", date)
