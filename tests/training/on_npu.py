"""Work on the device of fake_npu.py, in a process of its own: `operators`, or the arguments of `mmrnn`."""

import os
import sys
from dataclasses import replace

import fake_npu
import torch

from mmrnn.cli.main import main
from mmrnn.config import device
from mmrnn_kernels.delta import gated_delta_rule
from mmrnn_kernels.selective_scan import selective_scan
from mmrnn_kernels.wkv5 import wkv5
from mmrnn_kernels.wkv6 import wkv6
from mmrnn_kernels.wkv7 import wkv7

B, T, H, K = 2, 19, 2, 8
FULL = (B, T, H, K)
OPERATORS = {
    wkv5: (FULL,) * 3 + ((H, K),) * 2,
    wkv6: (FULL,) * 4 + ((H, K),),
    wkv7: (FULL,) * 6,
    gated_delta_rule: (FULL,) * 3 + (FULL[:-1],) * 2,
    selective_scan: ((B, T, K), (B, T, K), (K, 4), (B, T, 4), (B, T, 4)),
}


def compare_operators():
    """Values and gradients of every operator on the device and on the CPU, by `backend=auto` on both."""
    chosen = device.choose_device("npu")
    for operator, shapes in OPERATORS.items():
        torch.manual_seed(0)
        given = [0.3 * torch.randn(shape) for shape in shapes]
        if operator in (gated_delta_rule, selective_scan):  # log-decays and step sizes have a sign
            given = [-x.abs() if i == (3 if operator is gated_delta_rule else 2) else x for i, x in enumerate(given)]
        found = []
        for where in (torch.device("cpu"), chosen):
            inputs = [x.detach().to(where).requires_grad_() for x in given]
            out, state = operator(*inputs)
            assert out.device.type == state.device.type == where.type
            ((out * out).sum() + state.sum()).backward()
            found.append([x.detach().cpu() for x in (out, state, *(x.grad for x in inputs))])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        print(operator.__name__, flush=True)


LIBRARY = fake_npu.install()  # torch forgets functions whose library is gone
if sys.argv[1] == "operators":
    compare_operators()
    code = 0
else:
    # Torch asks the C++ side of a device for pinned memory, which this one has not.
    device.KINDS["npu"] = replace(device.KINDS["npu"], pinned_memory=False)
    code = main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)  # torch cannot end such a device
