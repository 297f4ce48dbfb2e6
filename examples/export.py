"""A model without this library: image, embedding and one-token step, by torch.export (`.pt2`) and to ONNX.

    pip install 'mmrnn[export]'
    python examples/export.py        two small models with random weights
    python examples/export.py RUN    a trained one

The step reads an embedding and the tensors of a state, and returns logits and the tensors of the next state, all of
constant size and for any number of rows. It reads an image as it reads text, one visual token after the other. A scan
that reorders patches needs all of them at once: there, it continues a state that the model itself has made.
"""

import sys

import torch
from torch import Tensor, nn
from torch.export import Dim

import mmrnn
from mmrnn.backbones import RWKV6, RWKV7
from mmrnn.connectors import MLP
from mmrnn.encoders import PatchEmbed
from mmrnn.io.optional import require
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import Backbone, Sequence


class Image(nn.Module):
    """Pixels (`m c H W`) to visual tokens (`m v d`)."""

    def __init__(self, modality: Modality):
        super().__init__()
        self.modality = modality
        for part in modality.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = False  # ONNX has no such function for the attention of timm's SAM

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Encode and connect images of the encoder's own size."""
        return (self.modality.connect(self.modality.encode(pixels)),)


class Embed(nn.Module):
    """Token ids (`b`) to embeddings (`b d`)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        """Embed one token of each row."""
        return (self.backbone.embed(ids[:, None])[:, 0],)


class Step(nn.Module):
    """Embeddings (`b d`) and a state to logits (`b vocab`) and the next state."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        if not backbone.recurrent:
            name = type(backbone).__name__
            raise ValueError(f"{name} has a cache that grows with every token; take a backbone of constant state")
        self.backbone, self.initial = backbone, backbone.state(1)
        for part in backbone.modules():
            if hasattr(part, "backend"):
                part.backend = "reference"  # no runtime knows the operators of this library

    def forward(self, embeds: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Read one position of each row."""
        given = iter(tensors)
        state = self.initial.map(lambda _: next(given))
        ids = torch.zeros(embeds.shape[0], 1, dtype=torch.long)  # unused: the embeddings are given
        hidden, state = self.backbone(Sequence(ids, embeds=embeds[:, None]), state)
        return self.backbone.head(hidden[:, 0]), *(state.tensors[name] for name in self.initial.tensors)


def export(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], name: str) -> tuple:
    """Write `name.pt2` and `name.onnx`; return both as functions of tensors, as they are in the files."""
    onnxruntime = require("onnxruntime", "onnxruntime", wanted_by="the export to ONNX", extra="export")
    rows, tensors = {0: Dim("rows")}, tuple(inputs.values())
    shapes = (rows,) if len(tensors) == 1 else (rows, (rows,) * (len(tensors) - 1))
    program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
    torch.export.save(program, f"{name}.pt2")
    torch.onnx.export(program, f=f"{name}.onnx", input_names=[*inputs], output_names=outputs, verbose=False)
    session = onnxruntime.InferenceSession(f"{name}.onnx")

    def run(*tensors: Tensor) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(outputs, given)]

    return torch.export.load(f"{name}.pt2").module(), run


@torch.no_grad()
def check(model: VLM, rows: int = 3) -> None:
    """Export a model, then read images and text one position at a time, and compare with one reading by the model."""
    backbone, modality = model.backbone, model.modalities["image"]
    images, ids = torch.randn(rows, 3, *modality.image.size), torch.randint(256, (rows, 8))
    embeds = torch.cat([modality.connect(modality.encode(images)), backbone.embed(ids)], dim=1)
    hidden, _ = backbone(Sequence(torch.zeros(embeds.shape[:2], dtype=torch.long), embeds=embeds))
    logits = backbone.head(hidden)

    state, name = backbone.state(2).tensors, type(backbone).__name__  # exported with two rows, used with three
    step = {"embeds": embeds[:2, 0], **state}, ["logits", *(f"next.{name}" for name in state)]
    files = (
        export(Image(modality), {"pixels": images[:2]}, ["visual"], f"{name}_image"),
        export(Embed(backbone), {"ids": ids[:2, 0]}, ["embeds"], f"{name}_embed"),
        export(Step(backbone), *step, f"{name}_step"),
    )
    for kind, (image, embed, read) in zip(("torch.export", "ONNX"), zip(*files, strict=True), strict=True):
        positions = [*image(images)[0].unbind(1), *(embed(column)[0] for column in ids.unbind(1))]
        tensors, found = [*backbone.state(rows).tensors.values()], []
        for position in positions:
            scores, *tensors = read(position, *tensors)
            found.append(scores)
        error = (torch.stack(found, 1) - logits).abs().max() / logits.abs().max()
        print(f"{name} by {kind}: {len(found)} steps of {rows} rows, logits within {error:.0e} of the largest")
        assert error < 1e-5


def small(version: type) -> VLM:
    """Return a small model, none of whose weights are zero."""
    image = Modality(PatchEmbed(patch=8, width=32, size=16), MLP(32, 64))
    model = VLM(version(vocab=256, width=64, depth=2, head_size=32), {"image": image}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


if __name__ == "__main__":
    torch.manual_seed(0)
    for model in [mmrnn.load(sys.argv[1]).model] if sys.argv[1:] else [small(RWKV6), small(RWKV7)]:
        check(model)
