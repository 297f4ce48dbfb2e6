"""Pixels of photographs of 12 modes, equal to those of the processors of transformers, torchvision and open_clip."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.data import open_image, to_tensor
from mmrnn.types import ImageSpec

transformers = pytest.importorskip("transformers")
skimage_data = pytest.importorskip("skimage.data")

SIDE = 56
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def photograph(size=(301, 200)):
    return Image.fromarray(skimage_data.chelsea()).resize(size)


def faded(image):
    """With an alpha channel from clear to opaque."""
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


def sixteen(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)


FILES = {
    "RGB": ("a.png", lambda image: image, {}),
    "JPEG": ("a.jpg", lambda image: image, {}),
    "YCbCr": ("a.tiff", lambda image: image.convert("YCbCr"), {}),
    "L": ("a.png", lambda image: image.convert("L"), {}),
    "1": ("a.png", lambda image: image.convert("1"), {}),
    "P": ("a.gif", lambda image: image.convert("P"), {}),
    "CMYK": ("a.jpg", lambda image: image.convert("CMYK"), {}),
    "animated": ("a.gif", lambda image: image, {"save_all": True, "append_images": [Image.new("RGB", (301, 200))]}),
    "EXIF": ("a.jpg", lambda image: image, turned(None)),
    "RGBA": ("a.png", faded, {}),
    "LA": ("a.png", lambda image: faded(image).convert("LA"), {}),
    "P, clear": ("a.png", lambda image: image.quantize(64), {"transparency": bytes(range(0, 256, 4))}),
    "I;16": ("a.png", sixteen, {}),
}
NOT_AS_ORIGINAL = {"EXIF", "RGBA", "LA", "P, clear", "I;16"}
"""Modes whose policy differs from `convert("RGB")`, that of most originals."""


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    """Name of the mode and path of a photograph of that mode."""
    name, convert, options = FILES[request.param]
    convert(photograph()).save(tmp_path / name, **options)
    return request.param, tmp_path / name


def test_decoding(file):
    mode, path = file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about the alpha that is dropped
        upstream, loaded = Image.open(path).convert("RGB"), transformers.image_utils.load_image(str(path))
    assert open_image(path, decoding="convert").tobytes() == upstream.tobytes()
    assert open_image(path, decoding="load_image").tobytes() == loaded.tobytes()
    shown = open_image(path)
    assert (shown.tobytes() == upstream.tobytes()) == (mode not in NOT_AS_ORIGINAL)
    assert open_image(Image.open(path)).tobytes() == open_image(path.read_bytes()).tobytes() == shown.tobytes()
    if mode == "I;16":
        expected = np.round(np.asarray(Image.open(path)) / 257)[..., None].repeat(3, -1)
    elif mode in ("RGBA", "LA", "P, clear"):
        colours = np.asarray(Image.open(path).convert("RGBA"), dtype=float)
        alpha = colours[..., 3:] / 255
        expected = colours[..., :3] * alpha + 255 * (1 - alpha)
    else:
        expected = np.asarray(loaded)
    # Pillow composes in whole numbers.
    assert np.abs(np.asarray(shown) - expected).max() <= (1 if mode in ("RGBA", "LA", "P, clear") else 0)


def processor(name, **options):
    """Processor of transformers that works with PIL, which the originals ran."""
    cls = getattr(transformers, f"{name}ImageProcessorPil", None) or getattr(transformers, f"{name}ImageProcessor")
    made = cls(**options)
    return lambda image: torch.tensor(np.asarray(made(image)["pixel_values"][0]))


def levels(pixels, mean, std):
    """Values from 0 to 255 that pixels were made of."""
    exact = (pixels * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]) * 255
    assert (exact - exact.round()).abs().max() < 1e-3
    return exact.round().int()


def open_clip_transform(image):
    from open_clip import image_transform

    return image_transform(SIDE, is_train=False, mean=CLIP[0], std=CLIP[1])(image)


def torchvision_transform(image):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    steps = [Resize(SIDE, InterpolationMode.BICUBIC), CenterCrop(SIDE), ToTensor(), Normalize(*CLIP)]
    return Compose(steps)(image)


def llava_pad(image):
    """Image padded to a square with the mean colour, then CLIP's processor (LLaVA-1.5)."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in CLIP[0]))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return clip(square)


def clip(image):
    return processor("CLIP", size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})(image)


def squash(name, **options):
    return lambda image: processor(name, size={"height": SIDE, "width": SIDE}, **options)(image)


SQUARE, HALF = (SIDE, SIDE), (0.5, 0.5, 0.5)
PEERS = {
    "CLIP": (clip, ImageSpec(SQUARE, *CLIP, "crop")),
    "LLaVA": (llava_pad, ImageSpec(SQUARE, *CLIP, "pad")),
    "SigLIP": (squash("Siglip", resample=3), ImageSpec(SQUARE, HALF, HALF, "squash")),
    "BLIP": (squash("Blip"), ImageSpec(SQUARE, *CLIP, "squash")),
    "open_clip": (open_clip_transform, ImageSpec(SQUARE, *CLIP, "crop_rounded")),
    "torchvision": (torchvision_transform, ImageSpec(SQUARE, *CLIP, "crop_rounded")),
}


@pytest.mark.parametrize("peer", PEERS)
def test_what_an_encoder_reads(file, peer):
    """To the last bit of 255, from a file of any mode, by all the ways to RGB."""
    process, spec = PEERS[peer]
    _, path = file
    for decoding in ("composed", "convert"):
        image = open_image(path, decoding=decoding)
        theirs, ours = process(image), to_tensor(image, spec)
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
        assert torch.equal(levels(ours, spec.mean, spec.std), levels(theirs, spec.mean, spec.std))


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (56, 56), (57, 56), (30, 41), (300, 7), (9, 400), (1000, 3)])
@pytest.mark.parametrize("peer", PEERS)
def test_any_size(peer, size):
    """Odd margins, enlarged and very long images."""
    process, spec = PEERS[peer]
    image = photograph(size)
    theirs, ours = process(image), to_tensor(image, spec)
    assert torch.equal(levels(ours, spec.mean, spec.std), levels(theirs, spec.mean, spec.std))


@pytest.mark.parametrize("size", [(97, 61), (61, 150), (200, 41), (20, 20)])
def test_fuyu(size):
    spec = ImageSpec((90, 60), HALF, HALF, "within", "bilinear", multiple=30)
    image = photograph(size)
    cls = getattr(transformers, "FuyuImageProcessorPil", None) or transformers.FuyuImageProcessor
    [[padded]] = cls(size={"height": 90, "width": 60}, patch_size={"height": 30, "width": 30})(image)["images"]
    ours = to_tensor(image, spec)
    # Fuyu fills up to the whole size, of which only the patches that hold a part of the image are read.
    theirs = torch.tensor(np.asarray(padded))[:, : ours.shape[1], : ours.shape[2]]
    assert torch.equal(levels(ours, spec.mean, spec.std), levels(theirs, spec.mean, spec.std))


def test_openflamingos_tower_is_cut_as_open_clip_does():
    assert compose("model=flamingo_rwkv6_7b")["encoder"]["resize"] == "crop_rounded"
