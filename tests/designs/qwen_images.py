"""Images of a golden case as the towers of Qwen read them: patches in blocks, each pixel in two frames."""

import torch
from PIL import Image

from mmrnn.data.preprocess import to_tensor


def images_of(tensors, encoder):
    """Pixels of each image, as this library and as the original prepare them."""
    grids = tensors["in/grid_thw"].tolist()
    parts = tensors["in/pixel_values"].split([rows * cols for _, rows, cols in grids])
    found, truth = [], []
    for index, ((_, rows, cols), part) in enumerate(zip(grids, parts, strict=True)):
        image = Image.fromarray(tensors[f"in/picture/{index}"].permute(1, 2, 0).contiguous().numpy())
        found.append(to_tensor(image, encoder.image))
        side, patch = encoder.merge, encoder.patch
        blocks = part.view(rows // side, cols // side, side, side, 3, 2, patch, patch)
        # A still image is one frame twice.
        assert torch.equal(blocks[..., 0, :, :], blocks[..., 1, :, :])
        pixels = blocks[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6)
        truth.append(pixels.reshape(3, rows * patch, cols * patch))
    return found, truth


def by_blocks(tokens, grid, side):
    """Row-major patches in the order of the original: block after block."""
    rows, cols = grid
    return tokens.view(rows // side, side, cols // side, side, -1).transpose(1, 2).flatten(0, 3)
