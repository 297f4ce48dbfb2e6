"""Report of a sweep: designs with their intervals over seeds and images, and the contrasts of its file."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from mmrnn.config.sweep import SEED
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.conditions import key_of
from mmrnn.evaluation.reports.resampling import RESAMPLES
from mmrnn.evaluation.reports.section import Section
from mmrnn.evaluation.reports.seed_statistics import SeedEstimate, SeedEstimates, of_combinations, smallest_difference
from mmrnn.evaluation.reports.statistics import score_with_interval
from mmrnn.evaluation.sweeps.contrasts import Difference, differences
from mmrnn.evaluation.sweeps.differing_answers import differing_answers
from mmrnn.evaluation.sweeps.fold import Fold
from mmrnn.evaluation.sweeps.group_plots import cost_and_quality, interaction
from mmrnn.evaluation.sweeps.more_seeds import more_seeds
from mmrnn.evaluation.sweeps.plots import dots, learning_curves
from mmrnn.evaluation.sweeps.scores import Scores
from mmrnn.io.atomic import replace_file

MEAN = "mean over kinds"
CONTRAST_COLUMNS = ["contrast", "seed pairs", "difference [95 %]", "p", "p (Holm)", "smallest difference", "verdict"]
DESIGN_COLUMNS = ["design", "seeds", "mean [95 %]"]
FILES = ("designs.csv", "contrasts.csv")

DESIGNS = (
    f"Intervals come from {RESAMPLES:,} resamples of seeds and of images, with the questions about one image kept "
    "together: they say how far other seeds and other images would move a mean."
)
CONTRASTS = (
    "Differences are those of runs with the same seed on the same questions. p is that of the exact sign-flip test "
    "over seed pairs, then corrected by Holm for all p of this table; 5 pairs or fewer cannot have p < 0.05. A "
    "difference is better or worse where its interval excludes 0 and the corrected p is below 0.05. Smallest "
    "difference: a study with these seeds and images shows it with 80 % power at 5 % error; a smaller one may have "
    "been missed."
)
GUESSES = (
    "Without the image: chance is a guess among the answers that a kind of question has, majority the most frequent "
    "one, blind the most frequent answer that training gave to the very same question."
)
KINDS = "Kinds of question were not asked for one by one: their intervals are not corrected for their number."


class SplitResult(NamedTuple):
    """Estimates on a split: its scores, the mean of every design, and the contrasts of the sweep."""

    scores: Scores
    designs: Mapping[str, SeedEstimates]
    contrasts: Sequence[Difference]


def analyse(fold: Fold) -> dict[str, SplitResult]:
    """Return the estimates on every split or task that finished jobs of a sweep were asked."""
    return {
        split: SplitResult(scores, _design_means(scores), differences(scores.contrasts, scores))
        for split, scores in fold.scores.items()
        if scores.runs
    }


def _design_means(scores: Scores) -> dict[str, SeedEstimates]:
    found, kinds = {}, np.asarray(scores.kinds)
    for name, places in scores.designs().items():
        values = scores.values[places]
        every = of_combinations(scores.resampled, np.eye(len(scores.runs))[places])
        mean = _certain(every.mean, values, scores.clusters)
        by_kind = {
            kind: _certain(one, values[:, kinds == kind], scores.clusters[kinds == kind])
            for kind, one in every.kinds.items()
        }
        found[name] = SeedEstimates(mean, by_kind)
    return found


def _certain(estimate: SeedEstimate, values: np.ndarray, clusters: np.ndarray) -> SeedEstimate:
    """Estimate with the interval over images where all runs are right, or all wrong: resamples cannot differ."""
    if isnan(estimate.low) or not (np.all(values == 0) or np.all(values == 1)):
        return estimate
    images = np.unique(clusters, return_inverse=True)[1]
    interval = score_with_interval(values[0], [""] * len(images), images)
    return SeedEstimate(*interval, float("nan"), float("nan"))


def sweep_sections(name: str, fold: Fold, results: Mapping[str, SplitResult]) -> list[Section]:
    """Return the sections on a sweep: for every split the designs, the contrasts and the contrasts by kind."""
    found = [
        Section(f"Sweep {name}", notes=[*filter(None, [fold.plan.note]), *fold.notes], more=learning_curves(fold.runs))
    ]
    for split, (scores, designs, contrasts) in results.items():
        kinds = _kinds(designs)
        places = scores.designs()
        rows = [
            [name, str(len(places[name])), shown(each.mean), *(shown(each.kinds[kind]) for kind in kinds)]
            for name, each in sorted(designs.items(), key=lambda one: -one[1].mean.value)
        ]
        rows += guess_rows(scores, kinds)
        notes = [DESIGNS, *([GUESSES] if scores.baselines else [])]
        answers, faults = differing_answers(split, scores.contrasts, scores)
        if faults:
            notes.append(f"{len(faults):,} answers are shown without their image; first {faults[0]}.")
        plots = _panels(split, scores, designs) + _group_plots(split, scores, designs, fold.plan)
        found.append(Section(f"Designs: {split}", [*DESIGN_COLUMNS, *kinds], rows, notes, plots + answers))
        if contrasts:
            decides = split == next(iter(results))
            found += _contrast_sections(split, contrasts, kinds, more_seeds(fold.plan, contrasts) if decides else "")
    return found


def guess_rows(scores: Scores, kinds: Sequence[str]) -> list[list[str]]:
    """Return rows of the baselines without the image, as of the table of designs: name, no seeds, mean, every kind."""
    return [
        [name, "", f"{fmean(shares.values()):.1%}", *(f"{shares[kind]:.1%}" for kind in kinds)]
        for name, shares in scores.baselines.items()
    ]


def _kinds(designs: Mapping[str, SeedEstimates]) -> list[str]:
    """Kinds of question in the order of the tables; none where there is one alone, whose mean is that over kinds."""
    kinds = [*next(iter(designs.values())).kinds]
    return kinds if len(kinds) > 1 else []


def _panels(split: str, scores: Scores, designs: Mapping[str, SeedEstimates]) -> str:
    """Plots of the mean over kinds and of every kind."""
    means, places = scores.means(), scores.designs()
    found = ""
    for column, title in enumerate([MEAN, *_kinds(designs)]):
        figures = {name: [float(means[place, column]) for place in places[name]] for name in designs}
        estimates = {name: each.kinds[title] if column else each.mean for name, each in designs.items()}
        found += dots(f"{split}: {title}", figures, estimates)
    return found


def _group_plots(split: str, scores: Scores, designs: Mapping[str, SeedEstimates], plan: SweepPlan) -> str:
    """Interactions that the contrasts ask for (none: that of the first two keys), and cost against quality."""
    pairs = [(one["group"], one["by"]) for one in scores.contrasts if one.get("by")]
    pairs = pairs or [tuple(key for key, values in plan.grid.items() if key != SEED and len(values) > 1)[:2]]
    means = {name: each.mean for name, each in designs.items()}
    found = "".join(interaction(split, scores, means, *pair) for pair in dict.fromkeys(pairs) if len(pair) == 2)
    # Under conditions the same run is there several times.
    return found if key_of(split) else found + cost_and_quality(split, scores, means)


def shown(estimate: SeedEstimate, form: str = "{:.1%}") -> str:
    """Return an estimate in words."""
    if isnan(estimate.low):
        return f"{form.format(estimate.value)} (one seed or image: no interval)"
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def _contrast_sections(split: str, results: Sequence[Difference], kinds: Sequence[str], advice: str) -> list[Section]:
    rows, by_kind = [], []
    for one in results:
        if one.estimates is None:
            rows.append([one.name, "0", "", "", "", "", one.verdict])
            continue
        mean = one.estimates.mean
        small = smallest_difference(mean)
        ps = ["" if p is None else f"{p:.2g}" for p in (one.p, one.corrected)]
        least = "" if isnan(small) else f"{small:.1%}"
        rows.append([one.name, str(one.number), shown(mean, "{:+.1%}"), *ps, least, one.verdict])
        by_kind.append([one.name, *(shown(one.estimates.kinds[kind], "{:+.1%}") for kind in kinds)])
    found = [Section(f"Contrasts: {split}", CONTRAST_COLUMNS, rows, [CONTRASTS, *filter(None, [advice])])]
    if kinds and by_kind:
        found.append(Section(f"Contrasts by kind: {split}", ["contrast", *kinds], by_kind, [KINDS]))
    return found


def write_tables(folder: Path, results: Mapping[str, SplitResult]) -> list[Path]:
    """Write `designs.csv` and `contrasts.csv` into a folder: a row for every split, design or contrast, and kind.

    Returns:
        The files; one without a row is not written.
    """
    tables = ([*_design_rows(results)], [*_contrast_rows(results)])
    written = []
    for name, rows in zip(FILES, tables, strict=True):
        if len(rows) > 1:
            written.append(folder / name)
            replace_file(folder / name, partial(_write, rows=rows))
    return written


def _design_rows(results: Mapping[str, SplitResult]) -> Iterator[list[object]]:
    keys = list(dict.fromkeys(key for result in results.values() for run in result.scores.runs for key in run.options))
    yield ["split", *keys, "kind", "seeds", "questions", "mean", "low", "high"]
    for split, (scores, designs, _) in results.items():
        for name, places in scores.designs().items():
            options = scores.runs[places[0]].options
            for kind, one in _by_kind(designs[name]).items():
                questions = scores.kinds.count(kind) if kind != MEAN else len(scores.kinds)
                yield [split, *(options.get(key, "") for key in keys), kind, len(places), questions, *one.interval]


def _contrast_rows(results: Mapping[str, SplitResult]) -> Iterator[list[object]]:
    figures = ["pairs", "difference", "low", "high", "smallest_difference", "p", "p_holm", "verdict"]
    yield ["split", "contrast", "kind", *figures]
    for split, result in results.items():
        for each in result.contrasts:
            for kind, one in _by_kind(each.estimates).items() if each.estimates else ():
                asked = [each.p, each.corrected, each.verdict] if kind == MEAN else [None, None, ""]
                yield [split, each.name, kind, each.number, *one.interval, smallest_difference(one), *asked]


def _by_kind(estimates: SeedEstimates) -> dict[str, SeedEstimate]:
    return {MEAN: estimates.mean, **estimates.kinds}


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if cell != cell else cell for cell in row] for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8")
