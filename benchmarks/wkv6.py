"""WKV-6 on one CPU thread: `mmrnn_kernels`, native and in chunks, beside plain PyTorch (flash-linear-attention's).

    python benchmarks/wkv6.py

Times are process CPU time, which other tenants of the machine disturb least; A and B run in turn and the ratio is the
median of the ratios of neighbours. Memory is what the peak of a fresh process rises by.
"""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
warnings.simplefilter("ignore")

import torch  # noqa: E402

torch.set_num_threads(1)


def inputs(b, t, h, k):
    """r, k, v, w, u with pre-activations of the decay in [-8, 5]: from no decay to a complete one."""
    generator = torch.Generator().manual_seed(0)
    r, key, v = (torch.randn(b, t, h, k, generator=generator) for _ in range(3))
    return r, key, v, torch.rand(b, t, h, k, generator=generator) * 13 - 8, torch.randn(h, k, generator=generator)


def ours(tensors, backend="chunked"):
    from mmrnn_kernels import wkv6

    return tensors, lambda *x: wkv6(*x, backend=backend)[0]


def theirs(tensors):
    from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6

    r, k, v, w, u = tensors
    swapped = [x.transpose(1, 2).contiguous() for x in (r, k, v, -w.exp())]
    return (*swapped, u), lambda *x: naive_recurrent_rwkv6(*x, scale=1.0)[0]


def forward(tensors, op):
    with torch.no_grad():
        op(*tensors)


def both(tensors, op):
    leaves = [x.detach().requires_grad_() for x in tensors]
    op(*leaves).sum().backward()


def seconds(work, side):
    start = time.process_time()
    work(*side)
    return time.process_time() - start


def compare(work, one, other, pairs):
    """CPU milliseconds of both, and the median of the paired ratios."""
    for side in (one, other):
        work(*side)
    times = [(seconds(work, one), seconds(work, other)) for _ in range(pairs)]
    return *(1e3 * median(column) for column in zip(*times, strict=True)), median(b / a for a, b in times)


def megabytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def peak(work, side):
    """Megabytes that `work` adds, measured in a process of its own after a small run has loaded everything."""
    call = f"import wkv6 as b; b.measure(b.{work.__name__}, b.{side.__name__})"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure(work, side):
    work(*side(inputs(1, 32, 1, 64)))
    arguments = side(inputs(2, 1024, 8, 64))
    Path("/proc/self/clear_refs").write_text("5")
    start = megabytes("VmRSS")
    work(*arguments)
    print(megabytes("VmHWM") - start)


def native(tensors):
    return ours(tensors, "cpu")


def main():
    sides = {"cpu": native, "chunked": ours}
    tensors = inputs(2, 1024, 8, 64)
    print("B2 T1024 H8 K64, fp32, 1 thread       ours ms   fla ms    ratio   ours MB   fla MB")
    for name, work, pairs in (("forward", forward, 9), ("forward + backward", both, 3)):
        for backend, side in sides.items():
            a, b, ratio = compare(work, side(tensors), theirs(tensors), pairs)
            label = f"{backend:9s}{name}"
            print(f"{label:35s}{a:10.1f}{b:9.0f}{ratio:8.1f}x{peak(work, side):10.0f}{peak(work, theirs):9.0f}")
    print("\nsizes of a small training run          cpu ms  chunked ms   ratio  by token ms   ratio")
    for shape in ((64, 48, 4, 64), (64, 48, 4, 32), (1, 48, 4, 64), (1, 1, 12, 64)):
        tensors = inputs(*shape)
        for name, work in (("forward", forward), ("forward + backward", both)):
            a, b, chunks = compare(work, native(tensors), ours(tensors), 5)
            _, c, tokens = compare(work, native(tensors), ours(tensors, "reference"), 3)
            label = "B{} T{} H{} K{} ".format(*shape).ljust(17) + f"{name:18s}"
            print(f"{label}{a:10.2f}{b:12.2f}{chunks:7.1f}x{c:13.1f}{tokens:7.1f}x")


if __name__ == "__main__":
    main()
