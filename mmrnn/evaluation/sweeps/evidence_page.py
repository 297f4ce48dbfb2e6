"""Page with the answers of stored sweeps to the questions of papers (`docs/evidence.md`)."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from mmrnn.config.error import ConfigError
from mmrnn.evaluation.reports.section import markdown_table
from mmrnn.evaluation.reports.seed_statistics import SeedEstimate, smallest_difference
from mmrnn.evaluation.reports.sweep_file import SWEEP
from mmrnn.evaluation.sweeps.contrasts import NO_INTERVAL, Difference
from mmrnn.evaluation.sweeps.fold import Fold
from mmrnn.evaluation.sweeps.more_seeds import MATTERS, more_seeds
from mmrnn.evaluation.sweeps.paper_figures import PaperQuestion, PaperTable, read_questions
from mmrnn.evaluation.sweeps.reference import share_table
from mmrnn.evaluation.sweeps.report import SplitResult, analyse, guess_rows
from mmrnn.evaluation.sweeps.stored import read_stored

NOTHING = 0.005
"""Published difference below which a paper is taken to say that there is none."""

HEAD = f"""# Evidence

Questions of the papers, asked again with several seeds on generated scenes ([data.md](data.md), `data=questions`).
The page is made from stored results by `mmrnn report evidence --page docs/evidence.md`; [sweeps.md](sweeps.md#method)
has the method of intervals, p and smallest differences. Models are small and trained from scratch on one kind of
data: an effect that is not found here may exist in models of billions of parameters.

- **Reproduced**: the 95 % interval excludes 0 on the side of the paper, and the corrected p is below 0.05. Where the
  paper has no difference (less than {NOTHING:.1%}), the interval lies within {MATTERS:.0%} on both sides of 0.
- **Not reproduced**: the interval excludes a difference of {MATTERS:.0%} on the side of the paper, or the published
  one where that is smaller; or it shows one on the other side.
- **Undecided**: all else. Both are possible with these seeds and questions.

Figures are accuracies, the mean over the kinds of question, and differences of accuracies. A published difference is
the mean over the benchmarks of its table; papers have one run of each design.
"""


class Answer(NamedTuple):
    """A question, and what is stored on it; None: it was not run."""

    name: str
    question: PaperQuestion
    fold: Fold | None
    results: Mapping[str, SplitResult]


def evidence_page(folder: Path) -> str:
    """Return the page as Markdown; the same files give the same text.

    Args:
        folder: with `questions.yaml`, and a folder of stored results for each question that was run.

    Raises:
        ConfigError: a file is damaged, results belong to no question, or a published figure to no contrast.
        ImportError: scipy is not installed.
    """
    questions = read_questions(folder)
    if others := sorted(path.parent.name for path in folder.glob(f"*/{SWEEP}") if path.parent.name not in questions):
        raise ConfigError(f"{folder / others[0]}: no question of questions.yaml has this name; add it there")
    answers = [_answer(folder / name, name, question) for name, question in questions.items()]
    by_name = {one.name: one for one in answers}
    return "\n".join([HEAD, _summary(answers), *(_section(one, by_name) for one in answers)])


def _answer(folder: Path, name: str, question: PaperQuestion) -> Answer:
    if not folder.is_dir():
        return Answer(name, question, None, {})
    try:
        fold = read_stored(folder)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    results = analyse(fold)
    if question.split not in results:
        raise ConfigError(f"{folder}: there are no answers of the split {question.split!r} ({', '.join(results)})")
    known = {one.name for one in results[question.split].contrasts}
    for table in question.papers:
        for contrast in table.claims:
            if contrast not in known:
                raise ConfigError(
                    f"questions.yaml: {name} has a figure on {contrast!r}, which is no contrast of {folder / SWEEP}; "
                    f"there are {', '.join(sorted(known)) or 'none'}"
                )
    return Answer(name, question, fold, results)


def verdict(claim: float | None, one: Difference) -> str:
    """Return whether a difference is that of a paper, in words.

    Args:
        claim: published difference; None: there is none.
        one: our difference.
    """
    if claim is None:
        return one.verdict
    low, high = (one.estimates.mean.low, one.estimates.mean.high) if one.estimates else (float("nan"),) * 2
    if isnan(low):
        return "undecided"
    if abs(claim) < NOTHING:
        if low > -MATTERS and high < MATTERS:
            return "reproduced"
        return "not reproduced" if one.verdict in ("better", "worse") else "undecided"
    if one.verdict == ("better" if claim > 0 else "worse"):
        return "reproduced"
    most = high if claim > 0 else -low
    return "not reproduced" if most < min(MATTERS, abs(claim)) or one.verdict in ("better", "worse") else "undecided"


def _summary(answers: Sequence[Answer]) -> str:
    """Table of all contrasts that were tested, and of questions that were not run."""
    rows = []
    for name, question, fold, results in answers:
        if fold is None:
            rows.append([_link(name), question.question, "", "", "", "not run"])
        for one in _tested(results[question.split].contrasts) if fold is not None else ():
            claim = question.claim(one.name)
            mean = one.estimates.mean if one.estimates else None
            ours, least = (_points(mean), _least(mean)) if mean else ("", "")
            published = "" if claim is None else f"{claim:+.1%}"
            rows.append([_link(name), one.name, published, ours, least, verdict(claim, one)])
    columns = ["question", "contrast", "paper", "ours [95 %]", "smallest difference", "verdict"]
    return f"## Summary\n\n{markdown_table(columns, rows)}"


def _link(name: str) -> str:
    return f"[{name}](#{name})"


def _tested(contrasts: Sequence[Difference]) -> list[Difference]:
    return [one for one in contrasts if one.p is not None or one.estimates is None]


def _section(answer: Answer, others: Mapping[str, Answer]) -> str:
    name, question, fold, results = answer
    parts = [f"## {name}\n", f"{question.question}\n", *map(_paper, question.papers)]
    if question.note:
        parts.append(f"{question.note}\n")
    if fold is None:
        return "\n".join([*parts, "Not run: there are no results, and none are estimated.\n"])
    command = shlex.join(["mmrnn", "train", "-m", *fold.plan.command])
    if fold.plan.asked:
        places = (f"multirun/{one}" for one in (fold.plan.card, name))
        command += "\n" + shlex.join(["mmrnn", "sweep", "ask", *places, *fold.plan.asked])
    seconds = fmean(float(run.result["seconds"]) for run in fold.runs)
    parts.append(f"```bash\n{command}\n```\n")
    decides = results[question.split]
    kinds, images = decides.scores.kinds, len({*decides.scores.clusters.tolist()})
    asked = f"`{question.split}` has {len(kinds):,} questions of {len({*kinds})} kinds about {images:,} images"
    parts.append(f"{' '.join(fold.notes)} A run took {seconds:,.0f} s on average. {asked}.\n")
    parts += [*_sentences(question, decides.contrasts), ""]
    if advice := more_seeds(fold.plan, decides.contrasts):
        parts.append(f"{advice}\n")
    for group in _alike(results):
        parts += [_contrast_table(group)] if any(one.contrasts for one in group.values()) else []
        parts.append(_design_table(group))
    parts += [_shares(answer, others[question.reference.question])] if question.reference else []
    return "\n".join([*parts, _kind_table(question.split, decides)])


def _shares(answer: Answer, other: Answer) -> str:
    """Table with the share of a reference; empty: the sweep that has the reference was not run."""
    found, reference = ({split: one.scores for split, one in given.results.items()} for given in (answer, other))
    try:
        return share_table(found, reference, answer.question.reference.design) if other.fold else ""
    except ValueError as fault:
        raise ConfigError(f"questions.yaml: {answer.name}.reference: {fault}") from fault


def _alike(results: Mapping[str, SplitResult]) -> list[dict[str, SplitResult]]:
    """Splits with the same keys of designs together: under a condition, designs have one more."""
    found: dict[tuple[str, ...], dict[str, SplitResult]] = {}
    for split, result in results.items():
        found.setdefault(tuple(result.scores.runs[0].options), {})[split] = result
    return [*found.values()]


def _paper(table: PaperTable) -> str:
    rows = [[name, *("" if one is None else f"{one:.2f}" for one in row)] for name, row in table.rows.items()]
    return f"Published: {table.source}.\n\n{markdown_table(['', *table.columns], rows)}"


def _sentences(question: PaperQuestion, contrasts: Sequence[Difference]) -> Iterator[str]:
    """A sentence for every contrast on the split that decides."""
    for one in contrasts:
        start = f"- `{one.name}` on `{question.split}`:"
        if one.estimates is None:
            yield f"{start} {one.verdict}."
            continue
        mean = one.estimates.mean
        text = f"{start} {_points(mean)}, {one.number} {'pair' if one.number == 1 else 'pairs'} of runs"
        if isnan(mean.low):
            yield f"{text}. Undecided: {NO_INTERVAL}."
            continue
        if one.p is None or one.corrected is None:
            yield f"{text}; not tested by itself."
            continue
        claim = question.claim(one.name)
        published = "" if claim is None else f" The paper has {claim:+.1%}."
        least = _least(mean)
        missed = f"A difference of {least} shows with 80 % power; a smaller one may have been missed."
        yield f"{text}, p {one.corrected:.2g} (Holm).{published} **{_capital(verdict(claim, one))}**. {missed}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _points(mean: SeedEstimate) -> str:
    if isnan(mean.low):
        return f"{mean.value:+.1%} (no interval)"
    return f"{mean.value:+.1%} [{mean.low:+.1%}, {mean.high:+.1%}]"


def _least(mean: SeedEstimate) -> str:
    return "" if isnan(least := smallest_difference(mean)) else f"{least:.1%}"


def _contrast_table(results: Mapping[str, SplitResult]) -> str:
    """Differences on all splits."""
    names = dict.fromkeys(one.name for result in results.values() for one in result.contrasts)
    found = {
        split: {one.name: _points(one.estimates.mean) for one in result.contrasts if one.estimates}
        for split, result in results.items()
    }
    rows = [[name, *(found[split].get(name, "") for split in results)] for name in names]
    return markdown_table(["contrast [95 %]", *results], rows)


def _design_table(results: Mapping[str, SplitResult]) -> str:
    """Mean over kinds of every design on all splits, and without the image."""
    names = dict.fromkeys(name for result in results.values() for name in result.designs)
    rows = []
    for name in names:
        seeds = max(len(result.scores.designs().get(name, ())) for result in results.values())
        means = (result.designs[name].mean if name in result.designs else None for result in results.values())
        rows.append([name, str(seeds), *(_share(one) if one else "" for one in means)])
    guesses = {split: {row[0]: row[2] for row in guess_rows(result.scores, ())} for split, result in results.items()}
    for name in dict.fromkeys(name for one in guesses.values() for name in one):
        rows.append([name, "", *(guesses[split].get(name, "") for split in results)])
    return markdown_table(["design [95 %]", "seeds", *results], rows)


def _share(mean: SeedEstimate) -> str:
    return f"{mean.value:.1%}" if isnan(mean.low) else f"{mean.value:.1%} [{mean.low:.1%}, {mean.high:.1%}]"


def _kind_table(split: str, result: SplitResult) -> str:
    """Mean of every kind of question on the split that decides; empty: there is one kind alone."""
    kinds = [*next(iter(result.designs.values())).kinds]
    if len(kinds) < 2:
        return ""
    rows = [[name, *(f"{one.kinds[kind].value:.1%}" for kind in kinds)] for name, one in result.designs.items()]
    rows += [[row[0], *row[3:]] for row in guess_rows(result.scores, kinds)]
    return f"By kind, on `{split}`:\n\n{markdown_table(['design', *kinds], rows)}"
