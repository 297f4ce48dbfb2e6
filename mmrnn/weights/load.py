"""Tensors of a file or a dictionary into a module: completely, or with a list of what does not fit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrnn.io.tensor_files import Source, facts, read
from mmrnn.weights import lora
from mmrnn.weights.convert import Report, WeightsError, convert, mismatch_message, strip_wrapper_prefixes


def load(
    module: nn.Module,
    source: Source | Mapping[str, Tensor],
    *,
    format: str | None = None,
    strict: bool = True,
    new_words: int = 0,
) -> Report:
    """Fill `module` from a file, a folder, the hub or a dictionary of tensors.

    Every name of the source is used or ignored for a stated reason, and (`strict`) every parameter of the module is
    set. Nothing is changed when the load fails. Files are mapped and let go tensor by tensor; a module on the meta
    device takes the tensors of the file as they are, so nothing is held twice.

    A LoRA without its base is added to the weights that the module has: load the base first, and the LoRA once.

    Args:
        source: see `mmrnn.io.tensor_files.read`, or name -> tensor.
        format: name of the format; None recognises it by the names of the tensors.
        new_words: the most words that the module may know beside those of the source; their rows become the mean of
            the others.

    Raises:
        WeightsError: unknown or ambiguous format, missing, unexpected or mis-shaped tensors.
        FileNotFoundError, ConnectionError, ValueError: the source cannot be read.
    """
    report = Report(format="")
    if isinstance(source, Mapping):
        tensors, beside = strip_wrapper_prefixes(source), {}
    else:
        tensors = strip_wrapper_prefixes(read(source))
        beside = facts(source) if lora.is_lora(tensors) else {}
    added: dict[str, Tensor] = {}
    # A module that has these very matrices takes them as they are.
    if lora.is_lora(tensors) and not set(tensors) <= set(module.state_dict()):
        tensors, added = lora.split(tensors, beside)
    if added:
        return _add(module, tensors, added, format, report)
    ready = convert(module, tensors, format=format, report=report)
    del tensors
    if new_words:
        from mmrnn.weights.resize_embeddings import with_added_words

        ready = with_added_words(module, ready, new_words, report.notes)
    _check(module, ready, report.format, complete=strict)
    report.loaded = len(ready)
    _put(module, ready)
    return report


def _add(
    module: nn.Module, tensors: dict[str, Tensor], added: dict[str, Tensor], format: str | None, report: Report
) -> Report:
    """A LoRA, and what was trained as it is beside it, onto the base that the module holds."""
    every = convert(module, tensors | added, format=format, report=report, whole=False)
    alone = convert(module, tensors, format=report.format, whole=False) if tensors else {}
    _check(module, every, report.format, complete=False)
    target = module.state_dict()
    with torch.no_grad():
        for name, value in every.items():
            if name in alone:
                target[name].copy_(value)
            else:
                target[name].add_(value.to(target[name].dtype))
    report.loaded = len(every)
    report.notes.append(f"{len(every) - len(alone)} tensors of a LoRA were added to the weights that were there")
    return report


def _check(module: nn.Module, ready: Mapping[str, Tensor], format: str, complete: bool) -> None:
    target = module.state_dict()
    shapes = [
        f"{name}: {tuple(value.shape)}, the module has {tuple(target[name].shape)}"
        for name, value in ready.items()
        if value.shape != target[name].shape
    ]
    faults = {"missing": sorted(set(target) - set(ready)) if complete else [], "of another shape": shapes}
    if any(faults.values()):
        raise WeightsError(mismatch_message(module, format, faults))


@torch.no_grad()
def _put(module: nn.Module, ready: dict[str, Tensor]) -> None:
    """Copy each tensor, or give it to a module that has no memory for it, and let go of it."""
    made: dict[int, nn.Parameter] = {}
    for name in list(ready):
        value = ready.pop(name)
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        old = owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
        if not old.is_meta:
            old.copy_(value)
        elif leaf in owner._buffers:
            owner._buffers[leaf] = value.to(old.dtype)
        else:
            # Two names of one parameter stay one.
            new = made.setdefault(id(old), nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))
            owner._parameters[leaf] = new
