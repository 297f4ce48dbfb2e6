"""Tokens of an image in drawings: a colour for every place of the patch grid."""

from colorsys import hls_to_rgb


def patch_colour(row: int, col: int, rows: int, cols: int) -> str:
    """Return the colour of a patch, on which dark text can be read: the hue says the row, the lightness the column."""
    hue = 0.58 + 0.75 * row / rows
    lightness = 0.84 - 0.22 * col / max(cols - 1, 1)
    return "#" + "".join(f"{round(255 * part):02x}" for part in hls_to_rgb(hue % 1, lightness, 0.65))
