"""Folders of checkpoints in the folder of a run: `checkpoints/step_N`, whole once `.complete` is in it.

`.complete` is written last, and lists the files with their sizes. A writer that is killed leaves a folder without it,
which the next run in the folder removes.
"""

import json
import shutil
from pathlib import Path

from mmrnn.io.atomic import replace_file
from mmrnn.io.tensor_files import read_json

FOLDER, PREFIX, COMPLETE = "checkpoints", "step_", ".complete"


def step_folder(out: Path, step: int) -> Path:
    """Folder of the checkpoint after so many steps of a run."""
    return out / FOLDER / f"{PREFIX}{step}"


def step_of(folder: Path) -> int:
    """Number of steps that a run had taken when a checkpoint was saved."""
    return int(folder.name.removeprefix(PREFIX))


def step_folders(out: Path) -> list[Path]:
    """Checkpoints of a run, whole or not, by their step."""
    found = [path for path in (out / FOLDER).glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=step_of)


def mark_complete(folder: Path, *, kept: bool = False) -> None:
    """Declare a checkpoint whole.

    Args:
        folder: of the checkpoint.
        kept: it stays when later ones are saved, and when the run is finished.

    Raises:
        DiskFullError: there is no space for the list of its files.
    """
    text = json.dumps({"kept": kept, "files": _sizes(folder)})
    replace_file(folder / COMPLETE, lambda path: path.write_text(text), len(text))


def is_complete(folder: Path) -> bool:
    """True for a checkpoint all of whose files are there, with the size that they were written with."""
    try:
        return read_json(folder / COMPLETE)["files"] == _sizes(folder)
    except (OSError, ValueError, KeyError):
        return False


def newest(out: Path) -> Path | None:
    """Last whole checkpoint of a run."""
    return next((folder for folder in reversed(step_folders(out)) if is_complete(folder)), None)


def remove(folder: Path) -> None:
    """Remove a checkpoint; one that is half removed is not whole."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def remove_old(out: Path, keep_last: int) -> None:
    """Remove the whole checkpoints of a run but the last ones, and those that are to stay."""
    whole = [folder for folder in step_folders(out) if is_complete(folder)]
    for folder in whole[: max(len(whole) - keep_last, 0)]:
        if not _is_kept(folder):
            remove(folder)


def remove_incomplete(out: Path) -> list[Path]:
    """Remove what killed writers have left.

    Returns:
        The folders that are removed.
    """
    half = [folder for folder in step_folders(out) if not is_complete(folder)]
    for folder in half:
        remove(folder)
    return half


def remove_all(out: Path, *, but_kept: bool = True) -> None:
    """Remove the checkpoints of a run, all or but those that are to stay."""
    for folder in step_folders(out):
        if not (but_kept and is_complete(folder) and _is_kept(folder)):
            remove(folder)
    if not step_folders(out):
        shutil.rmtree(out / FOLDER, ignore_errors=True)


def _is_kept(folder: Path) -> bool:
    return bool(read_json(folder / COMPLETE).get("kept"))


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != COMPLETE}
