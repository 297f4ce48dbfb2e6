"""Questions of the evidence page with the published figures on them: `questions.yaml`, beside the stored sweeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from mmrnn.checkpoints.config_file import read_yaml
from mmrnn.config.coerce import coerce, did_you_mean
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import parameters

QUESTIONS = "questions.yaml"


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Table of a paper.

    Attributes:
        source: paper, table, model and number of runs.
        columns: benchmarks.
        rows: design -> its figure on each benchmark, in percent; null: there is none.
        claims: contrast of the sweep -> the rows of which it is the sum, with their weights: 1 and -1 of a difference.
    """

    source: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    claims: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def difference(self, contrast: str) -> float:
        """Return the published difference of a contrast as a share: the mean over benchmarks that all its rows have."""
        weights = self.claims[contrast]
        figures = zip(*(self.rows[name] for name in weights), strict=True)
        every = [[one for one in column if one is not None] for column in figures]
        sums = [
            sum(weight * one for weight, one in zip(weights.values(), column, strict=True))
            for column in every
            if len(column) == len(weights)
        ]
        return fmean(sums) / 100


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Design of another question, of whose accuracy that of every design is a share.

    Attributes:
        question: its name.
        design: as its table names it.
    """

    question: str
    design: str


@dataclass(frozen=True, kw_only=True)
class PaperQuestion:
    """A question of the page.

    Attributes:
        question: in words.
        split: held-out split that decides; the others are shown.
        papers: published figures; none: nobody has published any.
        note: sentences about what differs from the paper, or why it is not asked.
        reference: design of another question that ours are compared with, seed by seed; None: none.
    """

    question: str
    split: str = "scenes"
    papers: tuple[PaperTable, ...] = ()
    note: str = ""
    reference: Reference | None = None

    def claim(self, contrast: str) -> float | None:
        """Return the published difference of a contrast; None: there is none."""
        return next((table.difference(contrast) for table in self.papers if contrast in table.claims), None)


def read_questions(folder: Path) -> dict[str, PaperQuestion]:
    """Read the questions of a page, by the name of the folder with the results on them, in their order.

    Raises:
        ConfigError: there is no such file, or it is damaged; the message names the field.
    """
    path = folder / QUESTIONS
    if not path.is_file():
        raise ConfigError(f"there is no {path}; it names the questions of the page, and the published figures on them")
    found = {}
    for name, content in read_yaml(path).items():
        content = _mapping(content, f"{path}: {name}")
        tables = content.get("papers", [])
        if not isinstance(tables, list):
            raise ConfigError(f"{path}: {name}.papers: expected a list, got {tables!r}")
        papers = tuple(_table(one, f"{path}: {name}.papers.{number}") for number, one in enumerate(tables))
        rest = {key: value for key, value in content.items() if key not in ("papers", "reference")}
        question = PaperQuestion(**_fields(rest, PaperQuestion, f"{path}: {name}"), papers=papers)
        if (given := content.get("reference")) is not None:
            place = f"{path}: {name}.reference"
            question = replace(question, reference=Reference(**_fields(_mapping(given, place), Reference, place)))
        found[str(name)] = question
    for name, question in found.items():
        if question.reference and question.reference.question not in found:
            near = did_you_mean(question.reference.question, found)
            raise ConfigError(f"{path}: {name}.reference.question: there is no {question.reference.question!r}{near}")
    return found


def _table(content: Any, place: str) -> PaperTable:
    table = PaperTable(**_fields(_mapping(content, place), PaperTable, place))
    for row, figures in table.rows.items():
        if not isinstance(row, str):
            raise ConfigError(f"{place}.rows.{row}: the name of a row must be a text; put it in quotes")
        if len(figures) != len(table.columns):
            raise ConfigError(f"{place}.rows.{row}: {len(figures)} figures for {len(table.columns)} columns")
    for contrast, weights in table.claims.items():
        for row in weights:
            if row not in table.rows:
                near = did_you_mean(row, table.rows) or f"; it has {', '.join(table.rows)}"
                raise ConfigError(f"{place}.claims.{contrast}: the table has no row {row!r}{near}")
        if all(None in column for column in zip(*(table.rows[row] for row in weights), strict=True)):
            raise ConfigError(f"{place}.claims.{contrast}: no column has figures of all its rows")
    return table


def _mapping(content: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{place}: expected fields with values, got {content!r}")
    return content


def _fields(content: Mapping[str, Any], kind: type, place: str) -> dict[str, Any]:
    """Values of the fields of a class, in their types."""
    known = parameters(kind)
    if unknown := [name for name in content if name not in known]:
        near = did_you_mean(str(unknown[0]), known) or f"; it has {', '.join(known)}"
        raise ConfigError(f"{place}.{unknown[0]}: no such field{near}")
    if missing := [name for name, one in known.items() if one.default is one.empty and name not in content]:
        raise ConfigError(f"{place}.{missing[0]}: a value is required")
    found = {}
    for name, value in content.items():
        try:
            found[name] = coerce(value, known[name].annotation)
        except TypeError as fault:
            raise ConfigError(f"{place}.{name}: {fault}") from fault
    return found
