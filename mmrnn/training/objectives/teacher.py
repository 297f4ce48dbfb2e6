"""Teacher of a distillation: a frozen model that reads the batches of its student."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.config.compose import compose, conf_dir
from mmrnn.model.vlm import VLM, HiddenStateRecorder
from mmrnn.types import Batch, BlockHooks, Sequence


@dataclass(frozen=True)
class Lesson:
    """Reading of a batch by a teacher, without a graph.

    Attributes:
        sequence: embedded by the teacher.
        inputs: of all blocks, and the output of the last one; empty where nobody asked.
        hidden: after the last norm.
    """

    sequence: Sequence
    inputs: tuple[Float[Tensor, "b t d"], ...]
    hidden: Float[Tensor, "b t d"]


class BlockRecorder(HiddenStateRecorder):
    """Record of the input of every block, and of the output of the last one."""

    def __init__(self, inner: BlockHooks):
        super().__init__(inner)
        self.last: Tensor | None = None

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the output of block `layer` and record it."""
        self.last = super().after(layer, x)
        return self.last


class Teacher:
    """A frozen model in evaluation mode. It is no module: nothing trains, shards or saves it, and each process of a run
    holds all of it.

    Args:
        model: whole, with weights.
    """

    def __init__(self, model: VLM):
        self.model = model.requires_grad_(False).eval()
        self._device: torch.device | None = None

    @torch.no_grad()
    def read(self, batch: Batch, *, blocks: bool = False) -> Lesson:
        """Read a batch of the student, which has the same slots and ids.

        Args:
            batch: on the device of the student.
            blocks: record what the blocks take and give.

        Raises:
            ValueError: the backbone does not expose the inputs of its blocks.
        """
        self._move(batch.sequence.ids.device)
        model = self.model
        sequence = model.embed(batch)
        if not blocks:
            return Lesson(sequence, (), model.run_backbone(sequence)[0])
        recorder = BlockRecorder(BlockHooks() if model.hook is None else model.hook.start(sequence, None))
        hidden, _ = model.run_backbone(sequence, hook=recorder)
        if recorder.last is None:
            raise ValueError(f"teacher: {type(model.backbone).__name__} does not expose the inputs of its blocks")
        return Lesson(sequence, (*recorder.inputs, recorder.last), hidden)

    @torch.no_grad()
    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Compute the logits of hidden states."""
        return self.model.head(hidden)

    @cached_property
    def encoders(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of the encoder of every modality."""
        return {name: modality.encoder.state_dict() for name, modality in self.model.modalities.items()}

    def shares_encoders(self, model: VLM) -> bool:
        """True where the encoders of a model have the same tensors, so that its features are those of the teacher."""
        if set(model.modalities) != set(self.encoders):
            return False
        return all(_equal(modality.encoder, self.encoders[name]) for name, modality in model.modalities.items())

    def _move(self, device: torch.device) -> None:
        """Move to a device before the first batch; matrices take the dtype of autocast there, unless it is a CPU."""
        if device == self._device:
            return
        self._device = device
        self.model.to(device)
        if device.type != "cpu" and torch.is_autocast_enabled(device.type):
            for parameter in self.model.parameters():
                if parameter.dim() > 1 and parameter.dtype == torch.float32:
                    parameter.data = parameter.data.to(torch.get_autocast_dtype(device.type))


def _equal(encoder: nn.Module, tensors: dict[str, Tensor]) -> bool:
    own = encoder.state_dict()
    if own.keys() != tensors.keys() or any(value.is_meta for value in own.values()):
        return False
    return all(value.shape == own[name].shape and torch.equal(value, own[name]) for name, value in tensors.items())


def load_teacher(name: str, weights: str | None = None, trusted: Collection[str] = ()) -> Teacher:
    """Load a teacher, with the random numbers of this process left as they are.

    Args:
        name: folder of a checkpoint or run, `owner/name` on the hub, or a preset.
        weights: of a preset: file, folder or name on the hub, in any known format.
        trusted: packages beside mmrnn whose classes its cards may name.

    Raises:
        ConfigError: there is no such checkpoint, or the preset does not fit its weights.
        WeightsError: the tensors of the checkpoint do not fit its configuration.
        ValueError: a preset without weights, or weights of a checkpoint, which has its own.
        ConnectionError: the hub cannot be reached.
    """
    # What builds and reads models needs packages that a training without a teacher does not.
    from mmrnn.checkpoints.load import load_model
    from mmrnn.model.build import build

    preset = not Path(name).exists() and (conf_dir() / "model" / f"{name}.yaml").is_file()
    if preset and weights is None:
        raise ValueError(f"weights: the teacher {name} is a preset and has none; set objective.weights=FILE")
    if weights is not None and not preset:
        raise ValueError(f"weights: the teacher {name} is a checkpoint and has its own; remove objective.weights")
    with torch.random.fork_rng(devices=[]):
        if preset:
            cfg = compose(f"model={name}")
            cfg.weights.model = weights
            return Teacher(build(cfg, trusted=trusted))
        return Teacher(load_model(name, trusted=trusted))
