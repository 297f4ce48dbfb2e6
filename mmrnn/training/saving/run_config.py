"""Configurations of one run, compared: what must be the same for it to be resumed, and what may change."""

from collections.abc import Mapping
from typing import Any

from mmrnn.config.tree import leaves

MAY_CHANGE = frozenset(
    {
        *("out", "resume", "workers", "device", "strategy", "precision", "loader_timeout", "feature_folder"),
        *(
            "log_every",
            "tracker",
            "profile",
            "peak_tflops",
            "save_every_seconds",
            "max_save_share",
            "keep_last",
            "keep_every",
        ),
        *("max_bad_steps", "on_spike", "max_skipped", "compile"),
    }
)
"""Settings and groups with which a run computes the same, up to rounding."""

BENCHMARKS = frozenset({"evaluate.tasks", "evaluate.root"})
"""Settings of what follows the training."""

KNOBS = frozenset({"grad_checkpointing"})
"""Knobs of parts of which the same is true."""

ROUNDS = ("precision",)
"""Those of them that change the rounding of every number."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the values that differ and must not, if a run is to be resumed."""
    old, new = _fixed(before), _fixed(now)
    return sorted(name for name in {*old, *new} if name not in old or name not in new or old[name] != new[name])


def rounding_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what may differ but makes a resumed run round otherwise, as `name: before -> now`."""
    return [f"{name}: {before.get(name)} -> {now.get(name)}" for name in ROUNDS if before.get(name) != now.get(name)]


def _fixed(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Values that must stay, by their path; `choices` holds the chosen option of every group."""
    return {
        path: value
        for path, value in leaves(cfg)
        if path.removeprefix("choices.").partition(".")[0] not in MAY_CHANGE
        and path.rpartition(".")[2] not in KNOBS
        and path not in BENCHMARKS
    }
