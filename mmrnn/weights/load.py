"""Loading of published tensors into a module: complete, or an error that lists what does not fit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrnn.io.tensor_files import Source, read, read_metadata, require_dense
from mmrnn.weights import lora
from mmrnn.weights.convert import Report, WeightsError, convert, mismatch_message
from mmrnn.weights.resize_embeddings import resize_embeddings
from mmrnn.weights.wrapper_prefixes import strip_wrapper_prefixes


def load(
    module: nn.Module,
    source: Source | Mapping[str, Tensor],
    *,
    format: str | None = None,
    strict: bool = True,
    max_new_rows: int = 0,
) -> Report:
    """Fill `module` from a file, a folder, the hub or a dictionary of tensors.

    Every tensor of the source is used or ignored for a stated reason, and (`strict`) every tensor of the module is set.
    A load that fails changes nothing. Files are memory-mapped and released tensor by tensor; a module on the meta
    device takes the tensors of the file themselves, so that nothing is in memory twice.

    A LoRA without its base is added to the weights of the module: load the base first, then the LoRA once.

    Args:
        source: see `mmrnn.io.tensor_files.read`, or name -> tensor.
        format: name of the format; None: recognised by the names of the tensors.
        strict: False: tensors that the source lacks keep their values.
        max_new_rows: rows that the embedding of a backbone may have beyond that of the source; they are initialised to
            the mean embedding.

    Raises:
        WeightsError: unknown or ambiguous format; missing, unexpected or mis-shaped tensors.
        FileNotFoundError: there is no such file, folder or repository.
        ConnectionError: the hub cannot be reached.
        ImportError: the source needs an optional package.
        ValueError: the source is damaged or not safe to read, or an adapter is not a plain LoRA.
    """
    report = Report(format="")
    if isinstance(source, Mapping):
        for name, value in source.items():
            require_dense("these weights", name, value)
        tensors, metadata = strip_wrapper_prefixes(source), {}
    else:
        tensors = strip_wrapper_prefixes(read(source))
        metadata = read_metadata(source) if lora.is_lora(tensors) else {}
    added: dict[str, Tensor] = {}
    # A module with LoRA layers of its own takes the matrices themselves.
    if lora.is_lora(tensors) and not set(tensors) <= set(module.state_dict()):
        tensors, added = lora.split(tensors, metadata)
    if added:
        return _add(module, tensors, added, format, report)
    converted = convert(module, tensors, format=format, report=report)
    del tensors
    if max_new_rows:
        converted = resize_embeddings(module, converted, max_new_rows, report.notes)
    _check(module, converted, report.format, complete=strict)
    report.loaded = len(converted)
    _assign(module, converted)
    return report


def _add(
    module: nn.Module, tensors: dict[str, Tensor], added: dict[str, Tensor], format: str | None, report: Report
) -> Report:
    """Add the products of a LoRA (`added`) to the weights of the module, and replace those that are in `tensors`."""
    both = convert(module, tensors | added, format=format, report=report, partial=True)
    replaced = convert(module, tensors, format=report.format, partial=True) if tensors else {}
    _check(module, both, report.format, complete=False)
    target = module.state_dict()
    with torch.no_grad():
        for name, value in both.items():
            if name in replaced:
                target[name].copy_(value)
            else:
                target[name].add_(value.to(target[name].dtype))
    report.loaded = len(both)
    report.notes.append(f"{len(both) - len(replaced)} tensors of a LoRA were added to the weights of the module")
    return report


def _check(module: nn.Module, converted: Mapping[str, Tensor], format: str, complete: bool) -> None:
    target = module.state_dict()
    missing = sorted(set(target) - set(converted)) if complete else []
    shapes = [
        f"{name}: {tuple(value.shape)}, the module has {tuple(target[name].shape)}"
        for name, value in converted.items()
        if value.shape != target[name].shape
    ]
    kinds = [
        f"{name}: {value.dtype}, the module has {target[name].dtype}"
        for name, value in converted.items()
        if value.is_floating_point() != target[name].is_floating_point()
    ]
    if missing or shapes or kinds:
        mismatches = {"missing": missing, "of another shape": shapes, "of another kind": kinds}
        raise WeightsError(mismatch_message(module, format, mismatches))


@torch.no_grad()
def _assign(module: nn.Module, converted: dict[str, Tensor]) -> None:
    """Copy each tensor, or make it the tensor of a module on the meta device, and release it."""
    parameters: dict[int, nn.Parameter] = {}
    for name in list(converted):
        value = converted.pop(name)
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        old = owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
        if not old.is_meta:
            old.copy_(value)
        elif leaf in owner._buffers:
            owner._buffers[leaf] = value.to(old.dtype)
        else:
            # Tied parameters stay tied.
            new = parameters.setdefault(id(old), nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))
            owner._parameters[leaf] = new
