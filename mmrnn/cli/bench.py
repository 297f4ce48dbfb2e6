"""mmrnn bench [PART ...] [--quick] [--threads N] [--out DIR]

Time this library beside what else is installed (flash-linear-attention's PyTorch recurrence, the rwkv package,
transformers' Llama with its default and its static cache, timm). Parts: operator, prefill, decode, training, tower;
all of them when none is named. One thread, processor time, rivals in turn, medians of the ratios of every round.

A table here; bench.json and the curves over the context in DIR (bench).

  mmrnn bench operator decode
  mmrnn bench --quick            tiny sizes: proves that everything runs, measures nothing
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.config.coerce import near
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from mmrnn.bench.timing import BenchConfig, Row

PARTS = ("operator", "prefill", "decode", "training", "tower")
OPTIONS = ("--quick", "--threads", "--out")


def main(arguments: Sequence[str], dirs: Sequence[str] = ()) -> None:
    """Measure, print, write.

    Raises:
        ConfigError: wrong usage.
    """
    parts, options = _parse(arguments)
    threads = options.get("--threads", "1")
    if not threads.isdigit() or not int(threads):
        raise ConfigError(f"--threads: expected a number of threads, got {threads!r}")
    folder = Path(options.get("--out") or "bench")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out: {folder} is a file; name a folder")

    import torch
    from rich.console import Console

    from mmrnn.bench.timing import BenchConfig

    effort = BenchConfig(quick=True, most=3, seconds=0.0) if "--quick" in options else BenchConfig(threads=int(threads))
    before = torch.get_num_threads()
    torch.set_num_threads(int(threads))
    rows: list[Row] = []
    try:
        for part in parts:
            found = [*import_module(f"mmrnn.bench.{part}").measure(effort)]
            Console().print(table(part, found))
            rows += found
    finally:
        torch.set_num_threads(before)
    written = write(folder, rows, effort)
    for note in effort.left_out:
        print(f"left out: {note}")
    for path in written:
        print(path)


def table(part: str, rows: "Sequence[Row]") -> "Table":
    """What a part came to, for a terminal; ratios are to the first of each case."""
    from rich.table import Table

    shown = Table("case", "who", "ms", "times as fast", "of the best", "MB", title=part)
    first: dict[str, str] = {}
    for row in rows:
        base = first.setdefault(row.case, row.who)
        ratio = f"{row.times[base]:.2f}" if base in row.times else ""
        share = "" if row.share is None else f"{row.share:.0%}"
        size = "" if row.megabytes is None else f"{row.megabytes:.1f} ({row.what})"
        shown.add_row(row.case if base == row.who else "", row.who, f"{row.seconds * 1e3:.2f}", ratio, share, size)
    return shown


def write(folder: Path, rows: "Sequence[Row]", effort: "BenchConfig") -> list[Path]:
    """The JSON and, where contexts were measured, the curves."""
    import platform

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    from mmrnn.bench.plots import draw

    curves = draw(folder / "decode.png", rows, effort)
    facts = {
        "torch": torch.__version__,
        "processor": processor() or platform.machine(),
        "threads": effort.threads,
        "quick": effort.quick,
        "left_out": effort.left_out,
        "rows": [asdict(row) for row in rows],
    }
    path = folder / "bench.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return [path, *curves]


def processor() -> str:
    """The name of the processor, where Linux tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    parts, options = [], {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if word == "--quick":
            options[word] = ""
        elif name in OPTIONS[1:]:
            options[name] = value if equals else next(rest, "")
            if not options[name]:
                raise ConfigError(f"{name}: say its value behind it")
        elif word.startswith("-"):
            raise ConfigError(f"{word}: bench has no such option; it has {', '.join(OPTIONS)}")
        elif word not in PARTS:
            raise ConfigError(f"{word}: no such part{near(word, PARTS) or '; there are: ' + ', '.join(PARTS)}")
        else:
            parts.append(word)
    return parts or [*PARTS], options
