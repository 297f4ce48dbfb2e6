"""A device of the name `npu` whose tensors live on the CPU; for a process of its own, as torch cannot forget it.

Its operators are those of the CPU, called through torch's Python backend. What reaches one with a tensor that was left
on the CPU fails, as it would on a real device.
"""

import sys
from contextlib import nullcontext
from types import ModuleType

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

FACTORIES = ("empty.memory_format", "empty_strided")
ITEM = torch.ops.aten._local_scalar_dense.default


class NPUStream:
    """The only stream, in which everything is done at once."""

    def __eq__(self, other):
        return isinstance(other, NPUStream)

    def synchronize(self):
        pass


class NPUModule(_DummyBackendModule):
    """Stand-in for `torch.npu`, which torch_npu adds to torch, with the functions that mmrnn calls."""

    def __init__(self):
        self.seeds = torch.zeros(16, dtype=torch.uint8)

    def is_bf16_supported(self):
        return True

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def current_stream(self):
        return NPUStream()

    def stream(self, stream):
        return nullcontext()

    def get_rng_state(self, device):
        return self.seeds

    def set_rng_state(self, state, device):
        self.seeds = state

    def get_device_name(self, device):
        return "a fake"

    def synchronize(self):
        pass

    def mem_get_info(self, device):
        return 2**34, 2**35

    def memory_allocated(self, device):
        return 2**30 - 10**6

    def max_memory_allocated(self, device):
        return 2**30

    def reset_peak_memory_stats(self, device):
        pass


class NPUTensor(Tensor):
    """Tensor of the device, around one of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device="npu:0", **layout)

    def __init__(self, inner):
        self.inner = inner

    def tolist(self):
        return self.inner.tolist()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        # Inference mode hands over operators whole that are made of others.
        if function is not ITEM and (found := function.decompose(*args, **kwargs)) is not NotImplemented:
            return found
        if function is torch.ops.aten._to_copy.default and str(kwargs.get("device", "npu")).partition(":")[0] != "npu":
            return function(args[0].inner, **kwargs)
        given = tree_leaves((args, kwargs))
        strangers = [x for x in given if isinstance(x, Tensor) and not isinstance(x, cls) and x.dim()]
        if strangers and function is not torch.ops.aten.copy_.default:
            raise RuntimeError(f"{function}: expected all tensors on npu:0, got one of {strangers[0].shape} on the CPU")
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(cls, lambda x: x.inner, (args, kwargs))
        out = function(*args, **kwargs)
        return out if function is ITEM else tree_map_only(Tensor, cls, out)


def install():
    """Make the device known to torch, and `import torch_npu` succeed."""
    _setup_privateuseone_for_python_backend("npu", NPUModule())
    sys.modules["torch_npu"] = ModuleType("torch_npu")
    library = torch.library.Library("aten", "IMPL")

    def empty(size, *, dtype=None, **_):
        return NPUTensor(torch.empty(size, dtype=dtype))

    def empty_strided(size, stride, *, dtype=None, **_):
        return NPUTensor(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source, target, non_blocking=False):
        inner = source.inner if isinstance(source, NPUTensor) else source
        (target.inner if isinstance(target, NPUTensor) else target).copy_(inner)
        return target

    for name, function in (("empty.memory_format", empty), ("empty_strided", empty_strided), ("_copy_from", copy_from)):
        library.impl(name, function, "PrivateUse1")
    return library
