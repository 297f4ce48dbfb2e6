"""Images of every mode, and arrays, as 8-bit RGB: the policy for alpha, depth, palettes and orientation."""

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

Decoding = Literal["composed", "load_image", "convert"]
"""Way to RGB.

`composed`: turned upright as EXIF says; transparent pixels on white; 16 bits divided by 257; of integers of 32 bits
the values up to 255 as they are, larger ones as 16 bits; floats from 0 to 1, or from 0 to 255 where one is above 1.25;
other values are refused, such as normalised ones; CMYK, YCbCr, palettes and all others as Pillow converts them,
without colour profiles. The originals drop the alpha channel: `load_image` is that of transformers (turned upright,
then as `convert`), `convert` is `Image.convert("RGB")`, which ignores EXIF as well (LLaVA, VisualRWKV, EVE, LAVIS,
MiniGPT, Qwen-VL, CogVLM, open_clip). For 8-bit RGB, grey, palette or CMYK without transparency or orientation the
three are equal.
"""

OVERSHOOT = 0.25
"""Share by which floats may leave the range from 0 to 1, or from 0 to 255: scaled images do."""

ORIENTATION = 0x0112
"""EXIF tag."""

PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
"""Modes that Pillow converts to nothing but their counterpart without the premultiplied alpha."""


def to_rgb(image: Image.Image, decoding: Decoding = "composed") -> Image.Image:
    """Convert an image to 8-bit RGB, without metadata: converting the result again changes nothing.

    Raises:
        ValueError: values are not finite, or Pillow does not convert the mode.
    """
    if decoding != "convert":
        image = _upright(image)
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    image = _composed(image) if decoding == "composed" else image.convert("RGB")
    if image.info:
        image = image.copy()
        image.info = {}
    return image


def array_to_image(array: np.ndarray) -> Image.Image:
    """Convert an array (`height width`, or `height width channels` with 1 to 4 channels) to an image of 8 bits.

    Two channels are grey and alpha, four RGB and alpha; for the depth see `Decoding`.

    Raises:
        ValueError: the shape is another, the array is empty, or its values are no finite real numbers.
    """
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (2, 3, 4))):
        shape = " x ".join(map(str, array.shape))
        raise ValueError(f"its shape ({shape}) must be height x width, or height x width x 1 to 4 channels")
    return Image.fromarray(_eight_bits(array))


def is_turned(image: Image.Image) -> bool:
    """Return True where the EXIF of a header says that width and height change places."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # to look for it behind the pixels, Pillow would decode them
    try:
        return image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # broken EXIF: the pixels are valid
        return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    except Exception:  # broken EXIF: the pixels are valid
        return image


def _composed(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        return array_to_image(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        return ground.convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Values as uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise ValueError(f"its values ({values.dtype}) must be truth values, integers or floats")
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("it holds values that are not finite")
    lowest, highest = wide.min(), wide.max()
    if values.dtype.kind == "b":
        wide *= 255
    elif values.dtype.kind == "f":
        scale = 255 if highest <= 1 + OVERSHOOT else 1
        if lowest < -OVERSHOOT * highest or highest * scale > 255 * (1 + OVERSHOOT):
            raise ValueError(f"its values ({lowest:.6g} to {highest:.6g}) must lie from 0 to 1, or from 0 to 255")
        wide *= scale
    elif lowest < 0 or highest > 65535:
        raise ValueError(f"its values ({lowest:.0f} to {highest:.0f}) must lie from 0 to 65535")
    elif values.dtype.kind + str(values.dtype.itemsize) == "u2" or highest > 255:
        wide /= 257
    return wide.clip(0, 255).round().astype(np.uint8)
