"""Loading of published tensors into a module: complete, or an error that lists what does not fit."""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from mmrnn.io.tensor_files import Source, read, read_adapter_config, require_dense
from mmrnn.weights import adapters, start_states
from mmrnn.weights.convert import EMBEDDER, MAX_LISTED, Report, WeightsError, convert, mismatch_message, unwrap
from mmrnn.weights.resize_embeddings import resize_embeddings

CODES = ".codes"
"""End of the name of the codes of a quantised layer."""

CODE_DTYPES = (torch.int8, torch.uint8)
"""Types of the codes of quantised layers, which are read as they are."""


def load(
    module: nn.Module,
    source: Source | Mapping[str, Tensor],
    *,
    format: str | None = None,
    strict: bool = True,
    max_new_rows: int = 0,
    lora_alpha: float | None = None,
) -> Report:
    """Fill `module` from a file, a folder, the hub or a dictionary of tensors.

    Every tensor of the source is used or ignored for a stated reason, and (`strict`) every tensor of the module is set.
    A load that fails changes nothing. Files are memory-mapped and released tensor by tensor; a module on the meta
    device takes the tensors of the file themselves, so that nothing is in memory twice.

    An adapter without its base (LoRA, PiSSA, Bone, DiSHA) is merged into the weights of the module, and start states of
    an RWKV alone (state tuning) replace those of the module: load the base first, then the small file once.
    Start states that no file brings are zero.

    Args:
        source: see `mmrnn.io.tensor_files.read`, or name -> tensor.
        format: name of the format; None: recognised by the names of the tensors.
        strict: False: tensors that the source lacks keep their values; the notes of the report list them.
        max_new_rows: rows that the embedding of a backbone may have beyond that of the source; they are initialised to
            the mean embedding.
        lora_alpha: scale of a LoRA, times its rank; None: that of `adapter_config.json` beside the file.

    Raises:
        WeightsError: unknown or ambiguous format; missing, unexpected or mis-shaped tensors.
        FileNotFoundError: there is no such file, folder or repository.
        ConnectionError: the hub cannot be reached.
        ImportError: the source needs an optional package.
        ValueError: the source is damaged or not safe to read, or an adapter of an unknown kind.
    """
    report = Report(format="")
    changes = _read_changes(module, source, lora_alpha)
    if changes.added or changes.blocks:
        return _merge_adapter(module, changes, format, report)
    converted = _convert(module, changes.plain, format, strict, max_new_rows, report)
    if empty := [name for name in report.fresh if module.state_dict()[name].is_meta]:
        raise WeightsError(f"{empty[0]} is not in the source, and the module has no values for it: build it in memory")
    # Their files are released one by one.
    del changes
    _assign(module, converted)
    return report


def read_converted(
    module: nn.Module, source: Source | Mapping[str, Tensor], *, max_new_rows: int = 0
) -> tuple[dict[str, Tensor], Report]:
    """Return the tensors that `load` would give to a module, and its report.

    The module is left as it is, and may be on the meta device. The tensors have the dtype of the file, and stay mapped
    where the format renames, splits or transposes them.

    Raises:
        WeightsError: as `load`; an adapter without its base is refused.
        FileNotFoundError: there is no such file, folder or repository.
        ConnectionError: the hub cannot be reached.
        ImportError: the source needs an optional package.
        ValueError: the source is damaged or not safe to read, or an adapter of an unknown kind.
    """
    changes = _read_changes(module, source, None)
    if changes.added or changes.blocks:
        raise WeightsError(
            "an adapter without its base cannot be read into a model that is built in shards: merge it into the base "
            "first (mmrnn.build and mmrnn.save on one device)"
        )
    report = Report(format="")
    return _convert(module, changes.plain, None, True, max_new_rows, report), report


def _read_changes(
    module: nn.Module, source: Source | Mapping[str, Tensor], lora_alpha: float | None
) -> adapters.Changes:
    """Tensors of a source; those of an adapter without its base are changes of the weights of the module."""
    tensors = unwrap(module, _require_dense(source) if isinstance(source, Mapping) else read(source))
    _refuse_codes(module, tensors)
    # A module with LoRA layers of its own takes the matrices themselves.
    if not adapters.is_adapter(tensors) or set(tensors) <= set(module.state_dict()):
        return adapters.Changes(plain=tensors)
    config = {} if isinstance(source, Mapping) else read_adapter_config(source)
    return adapters.split(tensors, config if lora_alpha is None else {**config, "lora_alpha": lora_alpha})


def _refuse_codes(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Refuse codes for weights, and weights for codes."""
    given, wanted = (any(name.endswith(CODES) for name in names) for names in (tensors, module.state_dict()))
    if given and not wanted:
        raise WeightsError(
            "these weights are quantised: build the model with the same quantize=NAME, or compute weights from the "
            "codes (`mmrnn convert QUANTISED OUT quantize=none`)"
        )
    if wanted and not given:
        raise WeightsError(
            "the model is quantised, and these weights are not: load them into a model with quantize=none, then "
            "quantise that (`mmrnn convert RUN OUT quantize=int8`)"
        )


def _convert(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    format: str | None,
    strict: bool,
    max_new_rows: int,
    report: Report,
) -> dict[str, Tensor]:
    """Tensors under the names of the module, checked."""
    tensors = _without_heads(module, tensors, report)
    only_states = start_states.are_all(tensors)
    if only_states:
        start_states.require_base(module)
    converted = convert(module, tensors, format=format, report=report, partial=only_states)
    if max_new_rows:
        converted = resize_embeddings(module, converted, max_new_rows, report.notes)
    if strict and not only_states:
        start_states.fill(module, converted, report.notes)
    complete = strict and not only_states
    _check(module, converted, report.format, complete=complete, fresh=report.fresh)
    if complete and report.fresh:
        names = dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in sorted(report.fresh))
        report.notes.append(f"not in the source, as initialised: {', '.join(names)}")
    if not strict:
        _note_missing(module, converted, report.notes)
    report.loaded = len(converted)
    return converted


def _without_heads(module: nn.Module, tensors: Mapping[str, Tensor], report: Report) -> Mapping[str, Tensor]:
    """Leave out the heads of a whole model of ours that embed images and texts, where the module has none."""
    own = module.state_dict()
    heads = {name for name in tensors if name.startswith(EMBEDDER) and name not in own}
    if not heads or not set(tensors) - heads <= set(own):
        return tensors
    report.notes.append(f"the heads that embed images and texts ({EMBEDDER}*) were left out: an objective begins anew")
    return {name: value for name, value in tensors.items() if name not in heads}


def _require_dense(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for name, value in tensors.items():
        require_dense("these weights", name, value)
    return tensors


def _merge_adapter(module: nn.Module, changes: adapters.Changes, format: str | None, report: Report) -> Report:
    """Merge an adapter into the weights of the module, and replace those that are in the checkpoint as a whole."""
    # Blocks depend on the weight that they change: each is converted by name alone, as a scalar that is its index.
    names = list(changes.blocks)
    indices = {name: torch.tensor(float(index)) for index, name in enumerate(names)}
    both = convert(module, changes.plain | changes.added | indices, format=format, report=report, partial=True)
    replaced = convert(module, changes.plain, format=report.format, partial=True) if changes.plain else {}
    target, blocks = module.state_dict(), {}
    for name in [name for name in both if name not in replaced and both[name].ndim == 0 and target[name].ndim == 2]:
        blocks[name] = changes.blocks[names[int(both.pop(name))]]
    _check(module, both, report.format, complete=False)
    if without := [name for name in (*both, *blocks) if target[name].is_meta]:
        raise WeightsError(f"an adapter changes the weights of a base, and {without[0]} has none: load the base first")
    updates = {name: adapters.block_update(name, target[name], value) for name, value in blocks.items()}
    updates |= {name: value for name, value in both.items() if name not in replaced}
    with torch.no_grad():
        for name, value in updates.items():
            target[name].add_(value.to(target[name].dtype))
        for name, value in replaced.items():
            target[name].copy_(value)
    report.loaded = len(updates) + len(replaced)
    report.notes.append(f"{len(updates)} tensors of an adapter were merged into the weights of the module")
    return report


def _check(
    module: nn.Module, converted: Mapping[str, Tensor], format: str, complete: bool, fresh: Collection[str] = ()
) -> None:
    target = module.state_dict()
    missing = sorted({*target} - {*converted} - {*fresh}) if complete else []
    shapes = [
        f"{name}: {tuple(value.shape)}, the module has {tuple(target[name].shape)}"
        for name, value in converted.items()
        if value.shape != target[name].shape
    ]
    kinds = [
        f"{name}: {value.dtype}, the module has {target[name].dtype}"
        for name, value in converted.items()
        if value.is_floating_point() != target[name].is_floating_point()
        or (target[name].dtype in CODE_DTYPES and value.dtype != target[name].dtype)
    ]
    if missing or shapes or kinds:
        mismatches = {"missing": missing, "of another shape": shapes, "of another kind": kinds}
        raise WeightsError(mismatch_message(module, format, mismatches))


def _note_missing(module: nn.Module, converted: Mapping[str, Tensor], notes: list[str]) -> None:
    if missing := [name for name in module.state_dict() if name not in converted]:
        more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
        notes.append(f"not in the source, values kept: {', '.join(missing[:MAX_LISTED])}{more}")


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
