"""Files of repositories on the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmrnn.io.errors import first_line

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".gguf")
"""Suffixes of weight files, which no repository name ends with."""

WEIGHT_PREFERENCE = (".safetensors", ".bin", ".pth", ".pt", ".gguf")
"""Kinds of weights in the order in which one is chosen where a repository has several."""

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
URI = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")

TIMEOUT = 5.0
"""Seconds to wait for the hub, without retries."""


def is_repo_id(source: str | Path) -> bool:
    """True for `owner/name`, and for `hf://owner/name@revision/file` (one file of a repository)."""
    if not isinstance(source, str):
        return False
    plain = REPO_ID.fullmatch(source) is not None and not source.endswith(SUFFIXES) and ".." not in source
    return plain or URI.fullmatch(source) is not None


def fetch(source: str, also: Sequence[str] = ()) -> Path:
    """Download a repository (or one file of it) into the cache of `huggingface_hub`, unless it is there.

    Only JSON and one kind of weights are downloaded: safetensors before `.bin`, `.pth`, `.pt` and `.gguf`.

    Args:
        also: further file names to download.

    Raises:
        ImportError: `huggingface_hub` is not installed.
        ConnectionError: the hub cannot be reached and the cache does not have the repository.
        FileNotFoundError: the hub has no such repository or file.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ImportError(
            f"there is no file {source!r}, and the hub needs huggingface_hub: pip install 'mmrnn[hub]'"
        ) from error
    match = URI.fullmatch(source)
    repo, revision, file = (source, None, None) if match is None else match.group("repo", "revision", "file")
    try:
        names = list_files(repo, revision)
        if file is not None:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision, etag_timeout=TIMEOUT))
        patterns = [*select_files(names), *also]
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # its errors have no common base class, and a missing network shows in many ways
        missing = isinstance(error, errors.RepositoryNotFoundError | errors.EntryNotFoundError)
        if missing and not isinstance(error, errors.LocalEntryNotFoundError):
            raise FileNotFoundError(f"there is no file {source!r}, and the hub has none of that name") from error
        if (cached := _cached(repo, revision, file)) is not None:
            return cached
        raise ConnectionError(
            f"there is no file {source!r}, and the hub cannot be reached ({first_line(error)}); "
            "download the files where there is a network and name their folder"
        ) from error


def list_files(repo: str, revision: str | None = None) -> list[str]:
    """Files of a repository, by one request without retries."""
    import huggingface_hub

    info = huggingface_hub.HfApi().repo_info(repo, revision=revision, timeout=TIMEOUT)
    return [one.rfilename for one in info.siblings or ()]


def check_reachable(repo: str) -> None:
    """Send one request for a repository that is not in the cache, so that other code does not retry for a minute."""
    if _cached(repo, None, None) is None:
        list_files(repo)


def select_files(names: Sequence[str]) -> list[str]:
    """Files of a repository to download: one kind of weights and the JSON files, all at the top level."""
    top = [name for name in names if "/" not in name]
    selected = [name for name in top if name.endswith(".json")]
    for suffix in WEIGHT_PREFERENCE:
        if weights := [name for name in top if name.endswith(suffix)]:
            return [*selected, *weights]
    return selected


def _cached(repo: str, revision: str | None, file: str | None) -> Path | None:
    import huggingface_hub

    try:
        if file is not None:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision, local_files_only=True))
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except Exception:  # whatever the reason: it is not in the cache
        return None
