"""Samples that are left out, counted by reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_REASONS = 20
"""Most reasons that a record names; the others are counted together."""

OTHERS = "other reasons"


@dataclass
class LeftOut:
    """Samples that are left out, counted by reason.

    Attributes:
        reasons: for every reason, the number of samples and the id of the first of them.
    """

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, faults: Iterable[tuple[str, str]]) -> "LeftOut":
        """Count pairs of an id and a reason."""
        made = cls()
        for id, reason in faults:
            made.add(reason, id)
        return made

    @classmethod
    def merge(cls, records: Iterable[Mapping[str, Any]]) -> "LeftOut":
        """Add up what records hold."""
        made = cls()
        for record in records:
            for reason, row in record["reasons"].items():
                made.add(reason, row["first"], row["samples"])
        return made

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(samples for samples, _ in self.reasons.values())

    def add(self, reason: str, first: str, samples: int = 1) -> None:
        """Count samples that are left out for one reason, the first of them by its id."""
        before, known = self.reasons.get(reason, (0, first))
        self.reasons[reason] = before + samples, known

    def record(self) -> dict[str, Any]:
        """Return the counts as plain data, the most frequent reasons first."""
        rows = sorted(self.reasons.items(), key=lambda row: -row[1][0])
        shown = {reason: {"samples": samples, "first": first} for reason, (samples, first) in rows[:MAX_REASONS]}
        if rest := rows[MAX_REASONS:]:
            # A record that is read again may name the rest already.
            before = shown.get(OTHERS, {"samples": 0, "first": rest[0][1][1]})
            more = sum(samples for _, (samples, _) in rest)
            shown[OTHERS] = {"samples": before["samples"] + more, "first": before["first"]}
        return {"total": self.total, "reasons": shown}

    def __str__(self) -> str:
        rows = self.record()["reasons"].items()
        return "; ".join(f"{row['samples']} x {reason} (first: {row['first'] or 'no id'})" for reason, row in rows)
