"""Size of what pip would download for mmrnn and some of its extras on this platform; nothing is installed.

    python tools/download_size.py                 # the core
    python tools/download_size.py demo text       # with extras

pip resolves as in an empty environment; sizes are those that the index's server gives for the files.
"""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

ROOT = Path(__file__).resolve().parents[1]
CUDA = ("nvidia-", "cuda-")
"""Beginnings of the names of packages that a CUDA build of torch brings."""


def resolve(extras: list[str]) -> dict[str, str]:
    """Names of the packages that pip would install, with the address of each file."""
    wanted = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    options = ("--dry-run", "--ignore-installed", "--quiet", "--report", "-")
    command = [sys.executable, "-m", "pip", "install", *options, wanted]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = {one["metadata"]["name"].lower(): one["download_info"] for one in json.loads(report.stdout)["install"]}
    return {name: info["url"] for name, info in found.items() if "archive_info" in info}


def size(url: str) -> int:
    """Bytes of a file on a server or on this disk."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).stat().st_size
    with urlopen(Request(url, method="HEAD"), timeout=60) as answer:
        return int(answer.headers["Content-Length"])


def main() -> None:
    """Print a line for each group, then the largest packages."""
    sizes = {name: size(url) / 1e6 for name, url in resolve(sys.argv[1:]).items()}
    groups = dict.fromkeys(("torch", "CUDA libraries", "triton", "everything else"), 0.0)
    for name, megabytes in sizes.items():
        known = name if name in ("torch", "triton") else "everything else"
        groups["CUDA libraries" if name.startswith(CUDA) else known] += megabytes
    for name, megabytes in groups.items():
        print(f"{name:<16} {megabytes:7.0f} MB")
    print(f"{'all':<16} {sum(sizes.values()):7.0f} MB in {len(sizes)} packages\nlargest of everything else:")
    rest = {name: one for name, one in sizes.items() if name not in groups and not name.startswith(CUDA)}
    for name in sorted(rest, key=rest.get, reverse=True)[:8]:
        print(f"  {name:<34} {rest[name]:5.1f} MB")


if __name__ == "__main__":
    main()
