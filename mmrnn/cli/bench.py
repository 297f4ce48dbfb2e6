"""`mmrnn bench`: time this library against other installed libraries, and any preset at its full size."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.options import Parser, natural, one_of, to_path
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from mmrnn.bench.timing import BenchConfig, Row

PARTS = ("operator", "prefill", "decode", "training", "tower", "stream", "headline")
PRESET = "preset"
"""Part that overrides ask for."""


def parser() -> Parser:
    """Parser of `mmrnn bench`."""
    made = Parser(
        "bench",
        "[PART ...] [OVERRIDE ...] [OPTION ...]",
        """
Time this library against other installed libraries: flash-linear-attention's PyTorch recurrence, the rwkv package,
Llama of transformers with its default and its static cache, timm. One thread, processor time, alternating runs,
medians of the ratios of all rounds. Prints tables; writes bench.json, decode.png (cost over context length) and
stream.png (a video that is read frame by frame: frames a second and memory after 1 to 60 minutes).

`headline`: speed and memory against 1K to 24K positions of VisualRWKV-6, -7 and LLaVA-1.5 of equal size, 103K and 256K
of the RNNs, and beside them those of the published sizes on named GPUs, computed from bytes and FLOPs (headline.png).

With overrides (model=PRESET) that preset with random weights instead: the time of the first token, image included, of a
token behind it, and memory, for prompts of several lengths.

On a GPU: the operators beside flash-linear-attention's kernels, decoding and prefill of RWKV-6 from 0.1B to 7B, a
training step of 1.6B with its model FLOPs utilisation, a vision tower; times between CUDA events. On other accelerators
the same by wall time, without flash-linear-attention's kernels.
""",
        """
  mmrnn bench operator decode
  mmrnn bench --device cuda
  mmrnn bench model=visualrwkv6_1b6 --precision bf16 --prompt 1024 --prompt 4096
  mmrnn bench --quick            checks that everything runs; the times mean nothing
""",
    )
    made.add_argument(
        "parts",
        nargs="*",
        default=[],
        type=part_or_override,
        metavar="PART",
        help=f"{', '.join(PARTS)} (default: all of them), or overrides that choose a preset",
    )
    made.add_argument("--quick", action="store_true", help="tiny sizes and few rounds")
    made.add_argument("--device", default="cpu", metavar="DEVICE", help="such as cuda, cuda:1, npu (default: cpu)")
    made.add_argument("--threads", type=natural, default=1, metavar="N", help="threads; with more than 1, wall time")
    made.add_argument(
        "--precision",
        type=one_of(("fp32", "bf16")),
        default=None,
        metavar="TYPE",
        help="of `headline` and of a preset (default: fp32 on a CPU, bf16 on a device that multiplies it)",
    )
    made.add_argument(
        "--prompt",
        type=natural,
        action="append",
        default=[],
        metavar="N",
        help="positions of a prompt of a preset; may be repeated (default: 1024 and 4096)",
    )
    made.add_argument("--fps", type=natural, default=1, metavar="N", help="frames a second of `stream` (default: 1)")
    made.add_argument("--out", type=to_path, default=Path("bench"), metavar="DIR", help="folder of the files written")
    return made


def part_or_override(word: str) -> str:
    """A part, or an override of the configuration.

    Raises:
        ArgumentTypeError: it is none.
    """
    return word if "=" in word else one_of(PARTS)(word)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write.

    Raises:
        ConfigError: wrong usage.
    """
    options = parser().parse(arguments)
    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a file; name a folder")

    import torch
    from rich.console import Console

    from mmrnn.bench.timing import BenchConfig
    from mmrnn.config.device import choose_device, device_module, multiplies_bf16

    device = choose_device(options.device)
    if device.index:
        device_module(device).set_device(device)
    fast_bf16 = device.type != "cpu" and multiplies_bf16(device)
    parts = [word for word in options.parts if "=" not in word]
    overrides = tuple(word for word in options.parts if "=" in word)
    effort = {"quick": True, "max_rounds": 3, "seconds": 0.0} if options.quick else {"threads": options.threads}
    config = BenchConfig(
        **effort,
        device=device,
        fps=options.fps,
        precision=options.precision or ("bf16" if fast_bf16 else "fp32"),
        overrides=overrides,
        dirs=tuple(options.dirs),
        **({"prompts": tuple(options.prompt)} if options.prompt else {}),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    try:
        for part in [*parts, *([PRESET] if overrides else [])] or PARTS:
            found = [*measure(part, config)]
            Console().print(table(part, found))
            rows += found
    finally:
        torch.set_num_threads(before)
    written = write(options.out, rows, config)
    for note in config.skipped:
        print(f"skipped: {note}")
    for path in written:
        print(path)


def measure(part: str, config: "BenchConfig") -> "Iterator[Row]":
    """Rows of one benchmark on the device of `config`."""
    if not config.on_cpu and part not in (PRESET, "headline"):
        from mmrnn.bench.gpu import PARTS as on_accelerator

        return on_accelerator[part](config)
    return import_module(f"mmrnn.bench.{part}").measure(config)


def table(part: str, rows: "Sequence[Row]") -> "Table":
    """Terminal table of one part without empty columns; ratios are relative to the first row of each case."""
    from rich.table import Table

    kinds = {row.memory_kind for row in rows if row.megabytes is not None}
    memory = f"MB of {kinds.pop()}" if len(kinds) == 1 else ""
    rate = "frames/s" if any(row.minutes is not None for row in rows) else "tokens/s"
    counted = rate == "frames/s" or part in (PRESET, "headline")
    first: dict[str, str] = {}
    lines = []
    for row in rows:
        base = first.setdefault(row.case, row.name)
        line = {"case": row.case if base == row.name else "", "name": row.name, "ms": f"{row.seconds * 1e3:.2f}"}
        line["speedup"] = f"{row.speedup[base]:.2f}" if base in row.speedup else ""
        line["of peak"] = "" if row.peak_fraction is None else f"{row.peak_fraction:.0%}"
        if row.megabytes is not None:
            line[memory or "MB"] = f"{row.megabytes:.1f}" + ("" if memory else f" ({row.memory_kind})")
        if counted and "first token" not in f"{row.name} {row.case}":
            line[rate] = f"{1 / row.seconds:.1f}"
        if counted and row.process_megabytes is not None:
            line["process MB"] = f"{row.process_megabytes:.1f}"
        lines.append(line)
    order = ("case", "name", "ms", "speedup", "of peak", memory or "MB", rate, "process MB")
    headings = [heading for heading in order if any(line.get(heading) for line in lines)]
    shown = Table(title=part)
    for heading in headings:
        words = heading in ("case", "name")
        shown.add_column(heading, justify="left" if words else "right", overflow="fold")
    for line in lines:
        shown.add_row(*(line.get(heading, "") for heading in headings))
    return shown


def write(folder: Path, rows: "Sequence[Row]", config: "BenchConfig") -> list[Path]:
    """Write bench.json, and plots of what was measured at several context lengths or minutes of a video.

    Returns:
        The files written.
    """
    import torch

    from mmrnn.bench.plots import plot
    from mmrnn.config.device import device_name
    from mmrnn.io.processor import processor_name

    folder.mkdir(parents=True, exist_ok=True)
    plots = plot(folder, rows, config)
    facts = {
        "torch": torch.__version__,
        "processor": processor_name(),
        "threads": config.threads,
        "device": "cpu" if config.on_cpu else device_name(config.device),
        "quick": config.quick,
        "skipped": config.skipped,
        "rows": [asdict(row) for row in rows],
    }
    path = folder / "bench.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return [path, *plots]
