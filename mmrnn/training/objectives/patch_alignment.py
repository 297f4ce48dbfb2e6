"""EVE's patch aligning layer (arXiv 2406.11832): hidden states of patches are aligned to a teacher's features."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Encoder, ImageSpan, Objective, Output, PositiveInt, reset_layers


class PatchAlignment(nn.Module, Objective):
    """1 - cosine between the teacher's patches and features from several layers of the language model.

    For each patch, the last layer gives the query of an attention whose keys and values are every `every`-th layer
    below it, down to the embeddings.
    The layer exists while training only.

    Args:
        teacher: a built encoder without class token; it is frozen.
        every: layers from one level to the next.
        heads: of the attention over levels.
    """

    needs_hidden_states = True
    needs_images = True

    def __init__(self, model: VLM, *, teacher: Encoder, every: PositiveInt = 4, heads: PositiveInt = 8):
        super().__init__()
        depth, width = model.backbone.depth, model.backbone.width
        if depth % every:
            raise ValueError(f"every ({every}) must divide the depth of the backbone ({depth})")
        if teacher.width % heads:
            raise ValueError(f"the teacher's width ({teacher.width}) must be a multiple of heads ({heads})")
        self.heads, self.chosen = heads, list(range(depth, -1, -every))
        self.norms = nn.ModuleList(nn.LayerNorm(width, 1e-5) for _ in self.chosen)
        self.level_proj = nn.ModuleList(nn.Linear(width, teacher.width, bias=False) for _ in self.chosen)
        self.input_proj = nn.Linear(width, teacher.width)
        self.output = nn.Linear(teacher.width, teacher.width)
        self.teacher = teacher.requires_grad_(False)

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructors."""
        # The teacher was built first, and is the last that was registered.
        self.teacher.reset()
        for module in (self.norms, self.level_proj, self.input_proj, self.output):
            reset_layers(module)

    def forward(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The mean over the images of a batch; 0 where there is none."""
        blocks = [block for block in output.sequence.image_spans if block.modality == "image"]
        if not blocks:
            # Every process of a run has gradients of the same parameters.
            trained = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
            return 0.0 * sum(trained, output.hidden.new_zeros(()))
        losses = [
            self.loss(self.student(output.hidden_states, block, *goal.shape[:2]), goal)
            for block, goal in zip(blocks, self.goals(output.batch), strict=True)
        ]
        return torch.stack(losses).mean()

    def num_units(self, batch: Batch) -> int:
        """Number of images of a batch."""
        return sum(block.modality == "image" for block in batch.sequence.image_spans)

    def student(
        self, levels: tuple[Float[Tensor, "b t d"], ...], block: ImageSpan, rows: int, cols: int
    ) -> Float[Tensor, "rows cols e"]:
        """Features of one image from several layers of the language model, average-pooled to `rows x cols`."""
        layout = block.layout
        places = block.start + layout.patch_indices().to(levels[0].device)
        window = layout.rows // rows
        pooled = []
        for level in self.chosen:
            grid = levels[level][block.sample, places].view(layout.rows, layout.cols, -1)
            pooled.append(F.avg_pool2d(grid.movedim(-1, 0), window).movedim(0, -1).flatten(0, 1))
        query, *keys = (into(norm(x)) for norm, into, x in zip(self.norms, self.level_proj, pooled, strict=True))
        q, k = (rearrange(x, "n l (h k) -> n h l k", h=self.heads) for x in (query[:, None], torch.stack(keys, 1)))
        mixed = F.scaled_dot_product_attention(q, k, k, scale=query.shape[-1] ** -0.5)
        answer = self.input_proj(pooled[0]) + self.output(rearrange(mixed, "n h 1 k -> n (h k)"))
        return answer.view(rows, cols, -1)

    def loss(self, student: Float[Tensor, "rows cols e"], goal: Float[Tensor, "rows cols e"]) -> Float[Tensor, ""]:
        """One minus the mean cosine similarity of the patches of one image."""
        return 1 - F.cosine_similarity(student.float(), goal.float(), dim=-1).mean()

    @torch.no_grad()
    def goals(self, batch: Batch) -> list[Float[Tensor, "_ _ e"]]:
        """The teacher's patches of every image, which it is shown in the middle of a square."""
        side = self.teacher.image.size[0]
        patch = side // self.teacher.layout(side, side).rows
        found = []
        for image in batch.images["image"]:
            scale = side / max(image.shape[-2:])
            height, width = (max(round(length * scale / patch), 1) * patch for length in image.shape[-2:])
            small = F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)
            top, left = ((side - length) // 2 // patch * patch for length in (height, width))
            square = small.new_zeros(1, 3, side, side)
            square[..., top : top + height, left : left + width] = small
            grid = self.teacher(square)[0].unflatten(0, (side // patch, side // patch))
            found.append(grid[top // patch : (top + height) // patch, left // patch : (left + width) // patch])
        return found
