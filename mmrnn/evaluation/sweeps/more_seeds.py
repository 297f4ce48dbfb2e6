"""Extension of a sweep by further seeds, by a rule that its file states before the first run.

Adding seeds until a difference shows (optional stopping) inflates false positives; one extension, by a rule that was
fixed in advance, bounds that.
"""

import shlex
from collections.abc import Sequence

from mmrnn.config.overrides import override_key
from mmrnn.config.sweep import SEED
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.sweeps.contrasts import Difference

MATTERS = 0.02
"""Difference of accuracy that matters: where 0 and this one are both possible, the question is undecided."""


def more_seeds(plan: SweepPlan, contrasts: Sequence[Difference]) -> str:
    """Return a sentence on the seeds to add, with the command; empty: none, or they are there.

    Args:
        plan: of the sweep.
        contrasts: results on the split that decides; parts of them and interactions do not count.
    """
    there = plan.grid.get(SEED, ())
    missing = [str(seed) for seed in plan.more_seeds if str(seed) not in there]
    open_ones = [one.name for one in contrasts if one.main and _holds_both(one)]
    if not missing or not open_ones or plan.asked:
        return ""
    words = [word for word in plan.command if override_key(word) != "sweep.seeds"]
    command = shlex.join(["mmrnn", "train", "-m", *words, f"sweep.seeds=[{','.join([*there, *missing])}]"])
    return (
        f"Both no difference and one of {MATTERS:.0%} are possible for {'; '.join(open_ones)}. By the rule of the "
        f"file, seeds {', '.join(missing)} are to be added, once: `{command}`."
    )


def _holds_both(one: Difference) -> bool:
    if one.estimates is None:
        return False
    mean = one.estimates.mean
    return mean.low <= 0 <= mean.high and (mean.high >= MATTERS or mean.low <= -MATTERS)
