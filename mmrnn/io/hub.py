"""Weights from the Hugging Face hub, by the name of a repository."""

import re
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".gguf")
"""What files of weights end with, and no repository."""

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TIMEOUT = 5.0
"""Seconds to wait for an answer, once: a hub that is not there is said to be not there soon."""

URI = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")


def is_id(source: str | Path) -> bool:
    """`owner/name`, or `hf://owner/name@revision/file` for one file of a repository that holds several."""
    if not isinstance(source, str):
        return False
    plain = NAME.fullmatch(source) is not None and not source.endswith(SUFFIXES) and ".." not in source
    return plain or URI.fullmatch(source) is not None


def fetch(source: str, also: Sequence[str] = ()) -> Path:
    """The folder (or the file) of a repository, fetched into the cache of `huggingface_hub` unless it is there.

    Only JSON and one kind of weights are fetched: safetensors before `.bin`, `.pth`, `.pt` and `.gguf`.

    Args:
        also: further names to fetch.

    Raises:
        ImportError: `huggingface_hub` is not installed.
        ConnectionError: the hub cannot be reached and its cache does not hold the repository.
        FileNotFoundError: the hub has no such repository or file.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as fault:
        raise ImportError(
            f"there is no file {source!r}, and fetching it from the hub needs huggingface_hub: pip install 'mmrnn[hub]'"
        ) from fault
    match = URI.fullmatch(source)
    repo, revision, file = (source, None, None) if match is None else match.group("repo", "revision", "file")
    try:
        names = ask(repo, revision)
        if file is not None:
            return Path(hub.hf_hub_download(repo, file, revision=revision, etag_timeout=TIMEOUT))
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=[*choose(names), *also]))
    except Exception as fault:  # its errors have no common ancestor, and a missing network shows in many ways
        lost = isinstance(fault, errors.RepositoryNotFoundError | errors.EntryNotFoundError)
        if lost and not isinstance(fault, errors.LocalEntryNotFoundError):
            raise FileNotFoundError(f"there is no file {source!r}, and the hub has none of that name") from fault
        if (kept := _kept(repo, revision, file)) is not None:
            return kept
        reason = str(fault).strip().split("\n")[0] or type(fault).__name__
        raise ConnectionError(
            f"there is no file {source!r}, and the hub cannot be reached ({reason}); "
            "fetch the files where there is a network and name their folder"
        ) from fault


def ask(repo: str, revision: str | None = None) -> list[str]:
    """The files of a repository, by one question without retries: a download would ask again and again."""
    import huggingface_hub as hub

    answer = hub.HfApi().repo_info(repo, revision=revision, timeout=TIMEOUT)
    return [one.rfilename for one in answer.siblings or ()]


def check_reachable(repo: str) -> None:
    """Ask for a repository of which nothing is here yet, before other code waits for it for a minute."""
    if _kept(repo, None, None) is None:
        ask(repo)


def _kept(repo: str, revision: str | None, file: str | None) -> Path | None:
    """What an earlier day has fetched."""
    import huggingface_hub as hub

    try:
        if file is not None:
            return Path(hub.hf_hub_download(repo, file, revision=revision, local_files_only=True))
        return Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except Exception:  # whatever the reason: it is not there
        return None


def choose(names: Sequence[str]) -> list[str]:
    """The files of a repository to fetch: one kind of weights, and the small JSON beside them."""
    top = [name for name in names if "/" not in name]
    described = [name for name in top if name.endswith(".json")]
    for suffix in (".safetensors", ".bin", ".pth", ".pt", ".gguf"):
        if found := [name for name in top if name.endswith(suffix)]:
            return [*described, *found]
    return described
