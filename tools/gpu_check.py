"""Check this checkout on a GPU: every comparison of `gpu_checks`, then `mmrnn.bench`; one JSON file.

    python tools/gpu_check.py                    all of it, within 450 seconds
    python tools/gpu_check.py --only 'operators/wkv6/*' --no-bench
    python tools/gpu_check.py --dry-run          the same on the CPU, at tiny sizes: proves that it runs

Needs torch, Triton, einops and jaxtyping; no installation of mmrnn, no Hydra, no pytest. Benchmarks of peers that are
not installed are skipped by name. The exit code is 1 where a check failed or was not run.
"""

import argparse
import json
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("tools", "", "kernels")]

import torch
from gpu_checks import Check, all_checks

from mmrnn.bench.gpu import PARTS
from mmrnn.bench.timing import BenchConfig

PACKAGES = ("torch", "triton", "einops", "jaxtyping", "flash-linear-attention", "transformers", "timm")

CHECKS_SHARE = 0.6
"""Part of the time that the checks may take; the benchmarks get what is left."""

BENCH_ORDER = ("training", "decode", "prefill", "tower", "stream", "operator")
"""Last are those whose kernels, and fla's, take long to compile."""


def main(words: Sequence[str] | None = None) -> int:
    """Run, print a line a check, write the file; the exit code."""
    options = parser().parse_args(words)
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA device; --dry-run runs on the CPU", file=sys.stderr)
        return 2
    device, start = torch.device("cpu" if options.dry_run else "cuda"), time.monotonic()
    checks = [check for check in all_checks() if any(fnmatch(check.name, glob) for glob in options.only)]
    if not checks:
        print(f"gpu_check: no check is called {', '.join(options.only)}; --list names all", file=sys.stderr)
        return 2
    if options.list:
        print(*(check.name for check in checks), sep="\n")
        return 0
    share = 1.0 if options.no_bench else CHECKS_SHARE
    found = run_checks(checks, device, start + share * options.seconds)
    bench = {} if options.no_bench else run_bench(options.dry_run, start + options.seconds)
    failures = [f"{one['name']}: {one['failure']}" for one in found if one["failure"]] + bench.get("failures", [])
    facts = {**describe(device), "dry_run": options.dry_run, "failures": failures, "checks": found, "bench": bench}
    options.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{len(found)} checks, {len(failures)} failures, {time.monotonic() - start:.0f} s: {options.out}")
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--dry-run", action="store_true", help="run on the CPU; times mean nothing")
    made.add_argument("--only", nargs="+", default=["*"], metavar="GLOB", help="names of checks (default: all)")
    made.add_argument("--list", action="store_true", help="print the names of the checks and stop")
    made.add_argument("--no-bench", action="store_true", help="checks alone")
    made.add_argument("--seconds", type=float, default=450.0, help="time limit (default: %(default)s)")
    made.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="file to write (default: %(default)s)")
    return made


def run_checks(checks: Sequence[Check], device: torch.device, deadline: float) -> list[dict]:
    """Result of each check: seconds, differences, and the failure or None."""
    return [result(check.name, lambda check=check: check(device), deadline) for check in checks]


@contextmanager
def limited(deadline: float) -> Iterator[None]:
    """Raise TimeoutError inside the block at the deadline (on POSIX, and between two calls into native code)."""

    def stop(*_: object) -> None:
        raise TimeoutError("out of time")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def result(name: str, run: Callable[[], list], deadline: float) -> dict:
    """Result of one check; one that would start after the deadline counts as failed."""
    start = time.monotonic()
    if start > deadline:
        return {"name": name, "seconds": 0.0, "failure": "not run: out of time", "differences": []}
    try:
        with limited(deadline):
            found, failure = run(), None
    except Exception as fault:  # whatever a kernel raises belongs into the report
        found, failure = [], f"{type(fault).__name__}: {fault}"
    failure = failure or "; ".join(str(one) for one in found if not one.fits) or None
    seconds = time.monotonic() - start
    print(f"{'FAIL' if failure else 'ok':4} {seconds:6.2f} s  {name}" + (f"\n     {failure}" if failure else ""))
    return {"name": name, "seconds": seconds, "failure": failure, "differences": [written(one) for one in found]}


def written(difference) -> dict:
    """Fields of a difference; JSON has no infinity."""
    return {**asdict(difference), "error": difference.error if math.isfinite(difference.error) else None}


def run_bench(dry_run: bool, deadline: float) -> dict:
    """Rows of all benchmarks of a GPU, what was skipped, and what failed."""
    if dry_run:
        config = BenchConfig(quick=True, max_rounds=3, seconds=0.0)
    else:
        config = BenchConfig(device=torch.device("cuda"), max_rounds=21, seconds=1.0)
    rows, failures = [], []
    for part in BENCH_ORDER:
        try:
            with limited(deadline):
                for row in PARTS[part](config):
                    rows.append(asdict(row))
        except Exception as fault:  # the other parts still have something to say
            failures.append(f"bench {part}: {type(fault).__name__}: {fault}")
            print(f"FAIL           {failures[-1]}")
    return {"rows": rows, "skipped": config.skipped, "failures": failures}


def describe(device: torch.device) -> dict:
    """Versions and device."""
    known = {name: installed(name) for name in PACKAGES}
    facts = {"python": platform.python_version(), "packages": known, "cuda": torch.version.cuda, "device": "CPU"}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "memory_gb": card.total_memory / 1e9,
            "processors": card.multi_processor_count,
        }
    return facts


def installed(package: str) -> str | None:
    """Version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
