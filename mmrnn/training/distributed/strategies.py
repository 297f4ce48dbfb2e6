"""Strategies by which processes share a training step."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from inspect import signature

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from mmrnn.config.device import accelerator
from mmrnn.training.distributed.units import sharding_units
from mmrnn.training.precision import DTYPES
from mmrnn.types import PositiveInt, Strategy

DDP_ARGUMENTS = signature(DistributedDataParallel).parameters


class Single(Strategy):
    """One process."""

    replicates = False
    needs_processes = False


class Auto(Strategy):
    """`Single` for one process; for several `DDP` where the model and its optimizer fit into a GPU, else `FSDP`."""

    needs_processes = False


class DDP(Strategy):
    """A whole model in every process; gradients are averaged (`DistributedDataParallel`)."""

    def wrap(self, step: nn.Module) -> nn.Module:
        """Wrap the step anew, as a stage may train other parameters than the one before."""
        devices = {parameter.device for parameter in step.parameters()}
        index = [device.index for device in devices if device.type != "cpu"] or None
        # All ranks build the same buffers, and none changes in training. torch 2.14 renamed the argument.
        name = "forward_sync_buffers" if "forward_sync_buffers" in DDP_ARGUMENTS else "broadcast_buffers"
        return DistributedDataParallel(step, device_ids=index, gradient_as_bucket_view=True, **{name: False})

    def sync(self, module: DistributedDataParallel, last: bool) -> AbstractContextManager:
        """Average gradients in the last micro-batch; the others only add up."""
        return nullcontext() if last else module.no_sync()


class FSDP(Strategy):
    """A slice of every parameter, its gradient and its optimizer state in every process (FSDP2, `fully_shard`).

    Each block of a backbone or encoder, each connector, and what is left (embedding, head, hook, objective) are
    gathered when they are used. In bf16 parameters are gathered as bf16, gradients reduced in fp32; the forward pass
    runs under autocast, and inputs are not cast, so that the state of a recurrence stays fp32.

    Args:
        reshard: drop the gathered weights of a block after its forward pass and gather them again for the backward
            pass (ZeRO-3); false: keep them in between (ZeRO-2).
        replicate: copies of the sharded model, each spread over size / replicate processes (hybrid sharding: one copy
            a machine).
    """

    shards = True

    def __init__(self, *, reshard: bool = True, replicate: PositiveInt = 1):
        self.reshard, self.replicate = reshard, replicate

    def shard(self, step: nn.Module, precision: str) -> None:
        """Shard the units from the inside out.

        Raises:
            ValueError: `replicate` does not divide the number of processes.
        """
        policy = MixedPrecisionPolicy(DTYPES.get(precision), torch.float32, cast_forward_inputs=False)
        # Whoever calls a unit leaves its output as it is.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        mesh = self._mesh(next(step.parameters()).device.type)
        for unit in sharding_units(step.model, step.objective):
            fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=self.reshard)
        fully_shard(step, mesh=mesh, mp_policy=policy)

    def _mesh(self, kind: str) -> DeviceMesh:
        size = dist.get_world_size()
        if size % self.replicate:
            raise ValueError(f"strategy.replicate ({self.replicate}) must divide the number of processes ({size})")
        kind = kind if kind != "meta" else (accelerator() or "cpu")
        if self.replicate == 1:
            return init_device_mesh(kind, (size,))
        names = ("replicate", "shard")
        return init_device_mesh(kind, (self.replicate, size // self.replicate), mesh_dim_names=names)

    def wrap(self, step: nn.Module) -> nn.Module:
        """Return the step; weights that were gathered before learn as their slices do now."""
        for module in step.modules():
            if isinstance(module, FSDPModule):
                for parameter in _gathered_parameters(module):
                    parameter._unsharded_param.requires_grad_(parameter.sharded_param.requires_grad)
        return step

    def sync(self, module: FSDPModule, last: bool) -> AbstractContextManager:
        """Reduce gradients in the last micro-batch; the others keep theirs unsharded."""
        module.set_requires_gradient_sync(last)
        return nullcontext()


def _gathered_parameters(module: FSDPModule) -> list:
    """Parameters of a unit that were gathered once: torch decides only then that their gradients are computed."""
    groups = module._get_fsdp_state()._fsdp_param_groups
    return [item for group in groups for item in group.fsdp_params if hasattr(item, "_unsharded_param")]
