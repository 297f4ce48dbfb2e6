"""Position of a run, what a checkpoint says of it beside its tensors, and the checkpoint that a run resumes from."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmrnn.config.error import ConfigError
from mmrnn.io.tensor_files import read_json
from mmrnn.io.versions import library_versions
from mmrnn.training.distributed.world import World
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.run_config import differences, rounding_changes
from mmrnn.types import TrainingStage

STATE = "state.json"


@dataclass(frozen=True)
class Progress:
    """Position in a run: `step` steps of stage number `stage` are done, and `samples` samples of the run are read."""

    stage: int = 0
    step: int = 0
    samples: int = 0


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """Content of `state.json`: a run at the step of its checkpoint.

    Attributes:
        progress: position in the run.
        config: of the run.
        numbers: in the state of the optimizer, that are no tensors.
        random: states of the random generators of every rank.
        counters: of the training loop, such as the losses since the last record of the log.
        versions: of the libraries that have written it.
    """

    progress: Progress
    config: Mapping[str, Any]
    numbers: Mapping[str, float] = field(default_factory=dict)
    random: tuple[Mapping[str, Any], ...] = ()
    counters: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=library_versions)

    def to_text(self) -> str:
        """Return it as the JSON text of the file `STATE`."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "SavedRun":
        """Read it from the folder of a checkpoint.

        Raises:
            ValueError: it is damaged.
        """
        path = folder / STATE
        try:
            content = read_json(path)
            progress = Progress(**content.pop("progress"))
            saved = cls(progress=progress, **(content | {"random": tuple(content["random"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete {folder} to resume from an earlier one") from error
        if not all(isinstance(value, int) and value >= 0 for value in asdict(progress).values()):
            raise ValueError(f"{path} is damaged ({progress}); delete {folder} to resume from an earlier one")
        return saved


@dataclass(frozen=True)
class StartPoint:
    """Checkpoint that a run resumes from.

    Attributes:
        folder: of the checkpoint.
        saved: what it says.
        run: folder of the run that saved it, which may be another.
    """

    folder: Path
    saved: SavedRun
    run: Path

    @property
    def progress(self) -> Progress:
        """Position in the run."""
        return self.saved.progress

    def steps_done(self, stages: Mapping[str, TrainingStage]) -> int:
        """Steps that the run has taken, over all its stages."""
        before = [stage.steps for stage in stages.values()][: self.progress.stage]
        return sum(before) + self.progress.step


def find_start(out: Path, cfg: Mapping[str, Any], world: World, say: Callable[[str], None]) -> StartPoint | None:
    """Return the checkpoint that a run resumes from, as `find_checkpoint` chooses it; all ranks call it.

    Args:
        out: folder of the run.
        cfg: its configuration.
        world: the processes.
        say: prints a line.

    Raises:
        ConfigError: there is no checkpoint where `resume` says, or it is of a run of another configuration.
        ValueError: it is damaged.
    """
    folder = world.on_main(lambda: find_checkpoint(out, cfg["resume"], cfg["keep_last"], say))
    if folder is None:
        return None
    with world.all_or_none():
        saved = SavedRun.read(folder)
        check_config(saved, folder, cfg, say)
    return StartPoint(folder, saved, folder.parent.parent)


def find_checkpoint(out: Path, resume: str, keep_last: int, say: Callable[[str], None]) -> Path | None:
    """Return the checkpoint that a run resumes from, and remove what it does not need; None: it starts anew.

    Args:
        out: folder of the run.
        resume: `auto`: the last one of the folder; `never`: none, and those of the folder are removed; else the path of
            a checkpoint, or of a run, that the run starts from where its folder has none of its own.
        keep_last: number of checkpoints that stay in the folder.
        say: prints a line.

    Raises:
        ConfigError: there is no checkpoint at the path.
    """
    if resume == "never":
        folders.remove_all(out, but_kept=False)
        return None
    half = folders.remove_incomplete(out)
    folders.remove_old(out, keep_last)
    found = folders.newest(out)
    if found is None and resume != "auto":
        found = Path(resume) if folders.is_complete(Path(resume)) else folders.newest(Path(resume))
        if found is None:
            raise ConfigError(
                f"resume: {resume} holds no whole checkpoint; name a run, or one of its checkpoints/step_N"
            )
    if half:
        names, way = ", ".join(folder.name for folder in half), f"resumes from {found}" if found else "starts anew"
        say(f"{half[0].parent}: not written to the end, and removed: {names}; the run {way}")
    return found


def check_config(saved: SavedRun, folder: Path, cfg: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Compare the configuration of a checkpoint with that of the run that resumes from it.

    Args:
        saved: content of the checkpoint.
        folder: its folder, for messages.
        cfg: configuration of the run.
        say: prints a line.

    Raises:
        ConfigError: they differ in what must not change.
    """
    if names := differences(saved.config, cfg):
        raise ConfigError(
            f"resume: {folder} belongs to another configuration (it differs in {', '.join(names)}); "
            "repeat its overrides, or set weights.model to start from its weights alone"
        )
    if changed := rounding_changes(saved.config, cfg):
        say(f"the run is resumed with {', '.join(changed)}: its losses will differ by rounding")
    before = saved.versions
    other = {name: now for name, now in library_versions().items() if before.get(name) != now}
    if other:
        changes = ", ".join(f"{name} {before.get(name)} -> {now}" for name, now in other.items())
        say(f"{folder} was saved with other versions ({changes}): losses may differ by rounding")
