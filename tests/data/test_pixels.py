"""Pixels against the originals' processors (golden case `pixels`): decoded, and made what an encoder reads."""

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.data import InMemoryImage, open_image, to_tensor
from mmrnn.types import ImageSpec

pytestmark = pytest.mark.golden

RESIZES = {"clip_crop": "crop", "open_clip_crop": "crop_rounded", "llava_pad": "pad", "squash": "squash"}
DECODINGS = {"composed": "policy", "convert": "convert", "load_image": "load_image"}


def files(case):
    return {image["name"]: (base64.b64decode(image["base64"]), image) for image in case["pictures"]}


def stored(tensors, decoding, name):
    """Pixels of a decoding; those that equal another's are stored once."""
    order = {"policy": ("policy",), "convert": ("convert", "policy"), "load_image": ("load_image", "convert", "policy")}
    case = next(f"decoded/{known}/{name}" for known in order[decoding] if f"decoded/{known}/{name}" in tensors)
    return tensors[case].numpy().astype(int)


@pytest.mark.parametrize("decoding", DECODINGS)
def test_decoding(golden, tmp_path, decoding):
    """A path, bytes and an open image give the same pixels: those of the project's policy, or of the originals."""
    case, tensors = golden("pixels")
    for name, (content, image) in files(case).items():
        if decoding == "load_image" and image["load_image_equals_policy"]:
            expected = stored(tensors, "policy", name)
        else:
            expected = stored(tensors, DECODINGS[decoding], name)
        allowed = 2 if image["lossy"] else 1 if image["mode"] in ("RGBA", "LA") else 0
        path = tmp_path / name
        path.write_bytes(content)
        for source in (path, content, Image.open(path), Image.open(BytesIO(content))):
            found = np.asarray(open_image(source, decoding=decoding)).astype(int)
            assert found.shape == expected.shape, (name, type(source))
            assert np.abs(found - expected).max() <= allowed, (name, type(source))


def test_an_image_in_memory_is_that_of_its_file(golden):
    case, _ = golden("pixels")
    for name, (content, _) in files(case).items():
        wanted = np.asarray(open_image(content))
        assert np.array_equal(np.asarray(InMemoryImage(Image.open(BytesIO(content))).open()), wanted), name
        assert np.array_equal(np.asarray(InMemoryImage(wanted).open()), wanted), name


@pytest.mark.parametrize("policy", [*RESIZES, "fuyu_within"])
def test_what_an_encoder_reads(golden, policy):
    case, tensors = golden("pixels")
    side = case["config"]["size"]
    key = next(key for key in case["normalise"] if key.startswith(policy))
    mean, std = (tuple(values) for values in case["normalise"][key])
    if policy == "fuyu_within":
        spec = ImageSpec(tuple(case["config"]["fuyu_size_height_width"]), mean, std, "within", "bilinear", multiple=30)
    else:
        spec = ImageSpec((side, side), mean, std, RESIZES[policy])
    compared = shifted = 0
    for image in case["pictures"]:
        name = image["name"]
        expected = tensors.get(f"out/{policy}/{name}")
        if policy == "open_clip_crop":
            shifted += expected is not None
            expected = tensors[f"out/clip_crop/{name}"] if expected is None else expected
        if expected is None:
            continue
        decoded = Image.fromarray(tensors[f"decoded/policy/{name}"].numpy())
        wanted = (expected.float() / 255 - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(to_tensor(decoded, spec).permute(1, 2, 0), wanted, atol=1e-5, rtol=0)
        compared += 1
    assert compared >= (11 if policy == "fuyu_within" else len(case["pictures"]) - 1)
    assert shifted > 20 or policy != "open_clip_crop"
