"""Start-up times: imports, help, `mmrnn show` of a model of 7 billion parameters and of all presets.

    python tools/bench_startup.py

Whole processes, medians of five; memory is the peak of the process.
"""

import resource
import statistics
import subprocess
import sys
import time

from mmrnn import conf_dir

ROUNDS = 5


def wall(*command: str, rounds: int = ROUNDS) -> float:
    """Median seconds of a command."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def added(first: str, second: str) -> float:
    """Median milliseconds of the statement `second` after `first`."""
    code = f"import time\n{first}\nstart = time.perf_counter()\n{second}\nprint(time.perf_counter() - start)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(ROUNDS)
    ]
    return statistics.median(times) * 1e3


def main() -> None:
    """Measure and print."""
    borrow = "from mmrnn.connectors import QFormer"
    show = (sys.executable, "-m", "mmrnn", "show")
    print(f"import mmrnn, after import torch: {added('import torch', 'import mmrnn'):.1f} ms")
    print(f"{borrow}, after import torch: {added('import torch', borrow):.0f} ms")
    print(f"mmrnn --help: {wall(sys.executable, '-m', 'mmrnn', '--help'):.2f} s")
    seconds = wall(*show, "model=visualrwkv6_7b")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"mmrnn show model=visualrwkv6_7b: {seconds:.1f} s, {memory:.2f} GiB")
    presets = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml") if "tiny" not in path.stem)
    times = {name: wall(*show, f"model={name}", rounds=1) for name in presets}
    slowest = max(times, key=times.get)
    median = statistics.median(times.values())
    print(f"mmrnn show of {len(times)} presets: median {median:.1f} s, slowest {times[slowest]:.1f} s ({slowest})")


if __name__ == "__main__":
    main()
