"""EVE's patch embedding layer and its images, against the original; states as tokens."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.connectors import MLP
from mmrnn.data.preprocess import fitted_size, to_tensor
from mmrnn.encoders import EVEPatchEmbed, Patchify, StateEncoder
from mmrnn.model.vlm import Modality
from mmrnn.types import ImageSpec, Layout
from mmrnn.weights import load

close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-5)


def make_image(raw):
    return Image.fromarray(raw.permute(1, 2, 0).to(torch.uint8).numpy())


@pytest.mark.golden
def test_eve(golden, params):
    case, tensors = golden("eve_tower")
    config, weights = case["config"], params(tensors)
    encoder = EVEPatchEmbed(patch=config["ps"], width=config["pel"], size=config["img"], window=config["cs"])
    assert load(encoder, weights).format == "eve"
    connector = MLP(config["pel"], config["width"])
    load(connector, weights)
    for number in range(len(config["pics"])):
        shown = to_tensor(make_image(tensors[f"in/raw_{number}"]), encoder.image)
        valid = tensors["in/images"][number, 3].bool()
        inside = tensors["in/images"][number, :3, valid.any(1)][:, :, valid.any(0)]
        close(shown, inside)
        rows, cols = tensors["out/grid_hw"][number].tolist()
        assert encoder.layout(*shown.shape[-2:]) == Layout(rows, cols, prefix=1, separators=1)
        tokens = encoder(shown[None])
        close(tokens[0], tensors[f"out/pel_{number}"])
        close(connector(tokens)[0], tensors[f"out/visual_{number}"])


@pytest.mark.parametrize(("size", "tokens"), [(672, 601), (1344, 2353)])
def test_tokens_of_a_square(size, tokens):
    with torch.device("meta"):
        encoder = EVEPatchEmbed(size=size)
    assert encoder.layout(size, size).tokens == tokens
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 9_003_008


@pytest.mark.golden
def test_fuyu_images(golden):
    case, tensors = golden("fuyu_hf")
    for number, image in enumerate(case["images"].values()):
        most = image["max_size"]
        encoder = Patchify(patch=case["config"]["patch"], size=(most["height"], most["width"]), resize="within")
        shown = to_tensor(make_image(tensors[f"in/image_{number}"]), encoder.image)
        close(encoder(shown[None])[0], tensors[f"out/patches_{number}"], atol=1e-5)
        assert encoder.layout(*shown.shape[-2:]) == Layout(*image["rows_cols"])


@pytest.mark.parametrize(
    ("size", "wanted"), [((1000, 10), (672, 28)), ((10, 10), (672, 672)), ((600, 599), (672, 672))]
)
def test_the_short_side_is_whole_windows(size, wanted):
    spec = ImageSpec((672, 672), resize="fit", multiple=28)
    shown = to_tensor(Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)), spec)
    assert tuple(shown.shape[-2:]) == wanted[::-1]


@pytest.mark.golden
@pytest.mark.parametrize(("card", "key"), [("eve", "eve"), ("eve_hd", "eve_hd")])
def test_the_originals_sizes(golden, card, key):
    """The short side is rounded up to the teacher's patches: 28 pixels of 672, 56 of 1344."""
    knobs = plain(compose(f"encoder={card}")["encoder"])
    encoder = instantiate({**knobs, "width": 8, "heads": 1})
    case, _ = golden("eve_sizes")
    for row in case["rows"]:
        wanted = row[key]
        width, height = fitted_size((row["width"], row["height"]), encoder.image)
        assert (width, height) == (wanted["width"], wanted["height"])
        layout = encoder.layout(height, width)
        assert (layout.rows, layout.cols, layout.tokens) == (wanted["rows"], wanted["cols"], wanted["tokens"])


@pytest.mark.parametrize("multiple", [0, 14, 42, 224 + 28])
def test_a_multiple_is_of_whole_windows(multiple):
    with pytest.raises(ValueError, match=rf"multiple \({multiple}\) must be a multiple of a window \(28\)"):
        EVEPatchEmbed(width=8, heads=1, multiple=multiple)


def test_states_become_tokens():
    modality = Modality(StateEncoder(objects=3, features=5, width=8, tokens=2), MLP(8, 12))
    assert modality.layout(*modality.image.size).tokens == 6
    states = torch.randn(2, 3, 5)
    tokens = modality.connect(modality.encode(states), modality.encoder.layout(3, 5))
    assert tokens.shape == (2, 6, 12)
    one = modality.connect(modality.encode(states[:1, 1:2]), modality.encoder.layout(1, 5))
    torch.testing.assert_close(one[0], tokens[0, 2:4])
    with pytest.raises(ValueError, match="an object has 4 features, but features=5"):
        modality.encoder(torch.randn(2, 3, 4))
