"""Samples that a run leaves out: listed in `skipped.jsonl`, counted, and a reason to stop when they are too many."""

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmrnn.data.left_out import LeftOut
from mmrnn.io import jsonl
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.reading.sample_reader import SkippedSample
from mmrnn.training.saving.line_writer import LineWriter
from mmrnn.types import MapDataset

SKIPPED = "skipped.jsonl"
"""Name of the list in the folder of a run."""

WINDOW = 10_000
"""Samples read last, of which a share may be left out."""


class _Entry(NamedTuple):
    """A sample that was left out, and the number of samples that the run had read after its step."""

    samples: int
    sample: SkippedSample


class SkippedSamples:
    """Samples of a run that are left out.

    Every line of the list has `id`, `reason`, `detail`, `rank`, `worker`, and `samples`, the number of samples that
    the run had read after the step; 0 for a record that the reader left out, wholly or a part of it.

    Args:
        out: folder of the run.
        world: all ranks; the first one writes.
        max_skipped: share of the last 10,000 samples that may be left out.
        lines: writes the lists of the run.
    """

    def __init__(self, out: Path, world: World, *, max_skipped: float, lines: LineWriter | None = None) -> None:
        self.path, self.world, self.max_skipped = out / SKIPPED, world, max_skipped
        self._lines = lines or LineWriter()
        self._new: list[_Entry] = []
        self._recent: deque[_Entry] = deque()

    def start(self, data: MapDataset, samples: int) -> None:
        """Write what the reader of the data leaves out, and keep of an interrupted run what it will not read again.

        Args:
            data: the training samples.
            samples: number of samples that the run has read.

        Raises:
            TrainingError: the reader refuses too many records.
            ValueError: the list is damaged; the message names file and line.
        """
        kept: list[dict[str, Any]] = []
        if self.world.main:
            found = [{"id": id, "reason": reason, "rank": 0, "worker": None} for id, reason in data.left_out()]
            kept = [line for line in self._read() if 0 < line["samples"] <= samples]
            if found or kept or self.path.is_file():
                jsonl.replace(self.path, [*({**line, "samples": 0} for line in found), *kept])
        kept = self.world.broadcast(kept)
        names = ("id", "reason", "detail", "rank", "worker")
        self._recent = deque(
            _Entry(line["samples"], SkippedSample(-1, *(line.get(name, line["reason"]) for name in names)))
            for line in kept
            if line["samples"] > samples - WINDOW
        )
        refused = {id for id, _ in data.refused()}
        total = len(data) + len(refused)
        left_out = ((id, reason) for id, reason in data.left_out() if id in refused)
        self._check(len(refused), total, total, f"records of the data, all {total:,},", left_out)

    def _read(self) -> list[dict[str, Any]]:
        lines = jsonl.records(self.path)
        for number, line in enumerate(lines, 1):
            if type(line.get("samples")) is not int or not all(
                isinstance(line.get(key), str) for key in ("id", "reason")
            ):
                raise ValueError(f"{self.path} is damaged: line {number} has no id, reason and samples; delete it")
        return lines

    def add(self, dropped: Sequence[SkippedSample], samples: int) -> None:
        """Note what this rank dropped in a step.

        Args:
            dropped: samples of this rank.
            samples: number of samples that all ranks together have read after the step.
        """
        self._new += [_Entry(samples, one) for one in dropped]

    def flush(self, samples: int) -> None:
        """Write what was noted since the last call, on all ranks together.

        Args:
            samples: number of samples that all ranks together have read.

        Raises:
            TrainingError: too many of the last samples are left out.
        """
        new = sorted(entry for several in self.world.gather(self._new) for entry in several)
        self._new = []
        if self.world.main:
            self._lines.append(self.path, [_line(entry) for entry in new])
        self._recent.extend(new)
        while self._recent and self._recent[0].samples <= samples - WINDOW:
            self._recent.popleft()
        read = min(samples, WINDOW)
        left_out = ((one.id, one.reason) for _, one in self._recent)
        self._check(len(self._recent), WINDOW, read, f"last {read:,} samples that were read", left_out)

    def _check(self, count: int, total: int, read: int, of: str, left_out: Iterable[tuple[str, str]]) -> None:
        allowed = int(self.max_skipped * max(total, WINDOW))
        if count <= allowed:
            return
        rows = LeftOut.of(left_out).record()["reasons"].items()
        table = "\n".join(f"{row['samples']:>7}  {reason} (first: {row['first'] or 'no id'})" for reason, row in rows)
        raise TrainingError(
            f"{count:,} of the {of} are left out ({count / max(read, 1):.1%}), and max_skipped={self.max_skipped:g} "
            f"allows {allowed:,}:\n{table}\n{self.path} names each; mend the data, or raise max_skipped"
        )


def _line(entry: _Entry) -> dict[str, Any]:
    samples, one = entry
    line = {"id": one.id, "reason": one.reason, "detail": one.detail, "rank": one.rank, "worker": one.worker}
    return {**line, "samples": samples}
