"""Backbone state."""

import json
import re
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mmrnn.types.state_rows import cat_rows, cut_padding

FORMAT = "mmrnn.state.1"
"""Name of the file format, in the metadata of every state file."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Types that a backbone converts where a state has another one than itself."""


@dataclass(frozen=True)
class StateOrigin:
    """Kind and sizes of the backbone that a state belongs to, and fingerprints of the model around it.

    Attributes:
        kind: of the architecture (`rwkv6`).
        sizes: by name (`depth`, `width`).
        scan: fingerprint of the order in which the layers read an image; None: unknown.
        hook: fingerprint of the additions to the blocks; None: unknown.
    """

    kind: str
    sizes: Mapping[str, int]
    scan: str | None = None
    hook: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(f'{name} {size}' for name, size in self.sizes.items())})"

    def difference(self, other: "StateOrigin") -> tuple[str, str] | None:
        """Return, in words, the first fact in which two origins differ; facts that either does not know are equal."""
        if (self.kind, self.sizes) != (other.kind, other.sizes):
            return str(self), str(other)
        for name, mine, theirs in (("scan", self.scan, other.scan), ("hook", self.hook, other.hook)):
            if mine is not None and theirs is not None and mine != theirs:
                return f"a model with {name} {mine}", f"one with {name} {theirs}"
        return None


@dataclass(frozen=True)
class State:
    """Backbone state: token shifts and WKV matrices, or KV cache.

    A backbone returns a new state and does not modify the one that it was given, so that several continuations can
    start from one state. The tensors own their memory: none is a view of a larger one.

    Attributes:
        layers: tensors of each block by name, batch axis first.
        shared: tensors of the whole backbone and of its hook by name, batch axis first.
        origin: backbone that the state belongs to; None: unknown.
    """

    layers: tuple[dict[str, Tensor], ...]
    shared: dict[str, Tensor] = field(default_factory=dict)
    origin: StateOrigin | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "State":
        """Return the state with `change` applied to every tensor."""
        layers = tuple({name: change(value) for name, value in layer.items()} for layer in self.layers)
        return replace(self, layers=layers, shared={name: change(value) for name, value in self.shared.items()})

    def clone(self) -> "State":
        """Return a copy that shares no memory."""
        return self.map(lambda value: value.clone(memory_format=torch.contiguous_format))

    def detach(self) -> "State":
        """Return the state without its graph."""
        return self.map(Tensor.detach)

    def to(self, device: torch.device | str) -> "State":
        """Return the state on a device."""
        return self.map(lambda value: value.to(device))

    def select(self, rows: Int[Tensor, " rows"]) -> "State":
        """Return the state of some rows, in that order; rows may repeat. Padding of `cat` that all have is cut off."""
        tensors = cut_padding(self.tensors, rows)
        return self._replace({name: value[rows] for name, value in tensors.items()}, self.origin)

    @staticmethod
    def cat(states: Several["State"]) -> "State":
        """Concatenate the rows of several states of one model; `select` gives each back as it was.

        KV caches of different lengths are padded on the left and masked by `segments`, so that each row is continued
        as it is alone.

        Args:
            states: at least one.

        Raises:
            ValueError: there are no states, they belong to different models, or they lie on different devices.
        """
        states = [*states]
        if not states:
            raise ValueError("there are no states to concatenate; give at least one")
        origins = [state.origin for state in states if state.origin]
        origin = max(origins, key=lambda each: (each.scan is not None) + (each.hook is not None), default=None)
        for number, state in enumerate(states, 1):
            if state.origin and (found := state.origin.difference(origin)):
                raise ValueError(
                    f"state {number} belongs to {found[0]}, another one to {found[1]}; concatenate those of one model"
                )
        return states[0]._replace(cat_rows([state.tensors for state in states]), origin)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors by name: `layers.0.wkv`, `shared.segment`."""
        named = {f"shared.{name}": value for name, value in self.shared.items()}
        for index, layer in enumerate(self.layers):
            named |= {f"layers.{index}.{name}": value for name, value in layer.items()}
        return named

    @property
    def rows(self) -> int:
        """Number of rows of the batch; 0 for a state without tensors."""
        values = chain.from_iterable(layer.values() for layer in (*self.layers, self.shared))
        return next((value.shape[0] for value in values), 0)

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes: the memory that the state holds."""
        return sum(value.nbytes for value in self.tensors.values())

    def check_origin(self, origin: StateOrigin | None) -> None:
        """Check that the state was made by a model of this origin; None: unknown, and any state is accepted.

        Raises:
            ValueError: kind, sizes, scan or hook differ.
        """
        if self.origin and origin and (found := self.origin.difference(origin)):
            state, model = found
            raise ValueError(f"the state belongs to {state}, but this model is {model}; use the model that made it")

    def check(self, origin: StateOrigin | None, like: "State") -> None:
        """Check that a backbone can continue from the state.

        Args:
            origin: of the backbone; None: unknown, and only the tensors are compared.
            like: a state of the backbone; axes of size 0 stand for any size.

        Raises:
            ValueError: the state belongs to a backbone of another kind or of other sizes, or its tensors do not fit.
        """
        self.check_origin(origin)
        ours = f"this model is {origin}" if origin else "this model is another"
        if len(self.layers) != len(like.layers):
            raise ValueError(f"the state has {len(self.layers)} layers for {len(like.layers)}; {ours}")
        if missing := sorted(like.shared.keys() - self.shared.keys()):
            raise ValueError(f"the state lacks {missing[0]!r}; {ours}")
        for index, (layer, wanted) in enumerate(zip(self.layers, like.layers, strict=True)):
            if layer.keys() != wanted.keys():
                raise ValueError(f"layer {index} of the state has {sorted(layer)} for {sorted(wanted)}; {ours}")
            for name, value in layer.items():
                shape = wanted[name].shape
                if value.dim() != len(shape) or any(b not in (0, a) for a, b in zip(value.shape, shape, strict=True)):
                    raise ValueError(
                        f"{name} of layer {index} of the state is {_sizes(value.shape)} for {_sizes(shape)}; {ours}"
                    )
                if value.dtype not in (*DTYPES, wanted[name].dtype):
                    raise ValueError(f"{name} of layer {index} of the state is {value.dtype} for {wanted[name].dtype}")
        if fault := _row_fault(self.tensors):
            raise ValueError(f"the state is damaged: {fault}")

    def _replace(self, tensors: Mapping[str, Tensor], origin: StateOrigin | None) -> "State":
        """State of as many layers, with other tensors, named as in `tensors`."""
        layers, shared = tuple({} for _ in self.layers), {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if kind == "layers":
                index, _, name = name.partition(".")
                layers[int(index)][name] = value
            else:
                shared[name] = value
        return State(layers, shared, origin)

    def save(
        self, path: str | Path, facts: Mapping[str, str] | None = None, extra: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write a safetensors file, with the origin and `facts` in its metadata.

        Args:
            path: of the file; an existing one is replaced.
            facts: further facts by name that `load` can ask for, such as a fingerprint of the weights.
            extra: tensors by name that the file holds beside the state.
        """
        from safetensors.torch import save_file

        known = {"format": FORMAT, "depth": str(len(self.layers))}
        if self.origin is not None:
            known |= {"kind": self.origin.kind, "sizes": json.dumps(dict(self.origin.sizes))}
            policies = {"scan": self.origin.scan, "hook": self.origin.hook}
            known |= {name: value for name, value in policies.items() if value is not None}
        owned = self.detach().clone().tensors
        owned |= {f"extra.{name}": value.detach().cpu().contiguous() for name, value in (extra or {}).items()}
        save_file(owned, str(path), {**(facts or {}), **known})

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", facts: Mapping[str, str] | None = None) -> "State":
        """Read a file that `save` wrote.

        Args:
            path: of the file.
            device: of the tensors.
            facts: that the file must have been saved with; None: any.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, holds no state, or was saved with other facts.
        """
        return cls.load_file(path, device, facts).state

    @classmethod
    def load_file(cls, path: str | Path, device: str = "cpu", facts: Mapping[str, str] | None = None) -> "StateFile":
        """Read all of a file that `save` wrote; otherwise as `load`."""
        known, tensors = _read(Path(path), device)
        for name, value in (facts or {}).items():
            if (found := known.get(name)) != value:
                fault = f"was made with {name} {found}" if found else f"does not say which {name} it was made with"
                raise ValueError(f"{path}: the state {fault}, but this model has {name} {value}")
        extra = {key[6:]: tensors.pop(key) for key in [*tensors] if key.startswith("extra.")}
        depth = int(known["depth"])
        layers, shared = tuple({} for _ in range(depth)), {}
        for key, value in tensors.items():
            match = re.fullmatch(r"layers\.([0-9]{1,5})\.(.+)|shared\.(.+)", key)
            if match is None or (match[1] and int(match[1]) >= depth):
                raise ValueError(f"{path} is damaged: {key!r} is no tensor of a state of {depth} layers")
            (layers[int(match[1])] if match[1] else shared)[match[2] or match[3]] = value
        if fault := _row_fault(tensors):
            raise ValueError(f"{path} is damaged: {fault}")
        return StateFile(cls(layers, shared, _parse_origin(path, known)), known, extra)


class StateFile(NamedTuple):
    """Content of a state file: the state, all metadata, and the tensors beside the state."""

    state: State
    facts: dict[str, str]
    extra: dict[str, Tensor]


def _read(path: Path, device: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a state file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no state file {path}")
    try:
        with safe_open(str(path), "pt", device=device) as file:
            known = file.metadata() or {}
            # The tensors of the reader are views of the mapped file.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or not a state file: {error}") from error
    if known.get("format") != FORMAT or not re.fullmatch("[0-9]{1,5}", known.get("depth", "")):
        raise ValueError(f"{path} is no state file (format {known.get('format')!r} for {FORMAT!r})")
    return known, tensors


def _parse_origin(path: str | Path, known: Mapping[str, str]) -> StateOrigin | None:
    if "kind" not in known:
        return None
    try:
        sizes: Any = json.loads(known.get("sizes", ""))
    except (ValueError, RecursionError):
        sizes = None
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        raise ValueError(f"{path} is damaged: its sizes are {known.get('sizes')!r}")
    return StateOrigin(known["kind"], sizes, known.get("scan"), known.get("hook"))


def _row_fault(tensors: Mapping[str, Tensor]) -> str:
    """Fault of tensors that do not have one batch size; empty: there is none."""
    rows = {value.shape[:1] for value in tensors.values()}
    return "" if len(rows) <= 1 and () not in rows else "its tensors differ in the number of rows"


def _sizes(shape: torch.Size) -> str:
    return " x ".join("any" if size == 0 else str(size) for size in shape)
