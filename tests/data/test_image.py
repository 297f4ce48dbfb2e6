"""Images from files of every kind and fault, and as tensors."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.data import ImageError, ImageFile, open_image, to_tensor
from mmrnn.types import ImageSource, ImageSpec


def saved(image, format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_of(width, height):
    """A PNG that says it is so large and holds nothing."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    parts = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


RED, CLEAR = (255, 0, 0, 255), (0, 0, 255, 0)


def two(mode):
    """Left red, right fully transparent."""
    image = Image.new("RGBA", (2, 1), RED)
    image.putpixel((1, 0), CLEAR)
    return image.convert(mode)


@pytest.mark.parametrize("source", [saved(two("RGBA")), saved(two("RGBA"), "WEBP", lossless=True)], ids=["png", "webp"])
def test_what_is_transparent_becomes_white(source):
    image = open_image(source)
    assert image.mode == "RGB"
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_a_palette_with_a_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    opened = open_image(saved(image, transparency=1))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for source in (saved(Image.fromarray(values)), saved(Image.fromarray(values), "TIFF")):
        image = open_image(source)
        assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new("L", (3, 2), 255).convert(mode)
    opened = open_image(saved(image, "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF"))
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 255, 255)


def test_the_first_frame_of_what_moves():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        source = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert open_image(source).getpixel((2, 2))[0] > 200


def test_exif_turns_a_image_upright_and_broken_exif_spoils_nothing():
    image = Image.new("RGB", (8, 4), "white")
    image.paste("black", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_image(saved(image, "JPEG", exif=exif))
    assert opened.size == (4, 8)
    assert opened.getpixel((1, 1))[0] < 50 < 200 < opened.getpixel((1, 6))[0]
    assert open_image(saved(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).size == (8, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an image of a known format"),
        (b"<html>404</html>", "is not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is not an image of a known format"),
        (saved(noise(64, 64), "JPEG")[:1000], "is broken"),
        (saved(noise(64, 64))[:1000], "is broken"),
        (png_of(9000, 9000), "has 9000 x 9000 pixels, 64000000 are allowed"),
        (png_of(10000, 10000), "has 10000 x 10000 pixels, 64000000 are allowed"),
        (png_of(100000, 100000), "is too large to be opened"),
    ],
    ids=["empty", "html", "eps", "cut jpeg", "cut png", "large", "larger", "bomb"],
)
def test_one_sentence_names_file_and_fault(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"a.png {message}"):
        open_image(path)


def test_no_file_no_image(tmp_path):
    for path in (tmp_path / "none.png", tmp_path, f"{tmp_path}/a\0.png"):
        with pytest.raises(ImageError, match=str(tmp_path)):
            open_image(path)


def test_the_limit_is_a_choice():
    source = saved(noise(10, 10))
    assert open_image(source, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="10 x 10 pixels, 99 are allowed"):
        open_image(source, max_pixels=99)


def test_a_file_is_a_image(tmp_path):
    noise(5, 4).save(tmp_path / "a.png")
    image = ImageFile(tmp_path / "a.png", "folder/a.png")
    assert isinstance(image, ImageSource)
    assert image.key == "folder/a.png"
    assert ImageFile(tmp_path / "a.png").key == str(tmp_path / "a.png")
    assert image.open().size == (5, 4)
    with pytest.raises(ImageError, match="3 are allowed"):
        ImageFile(tmp_path / "a.png", max_pixels=3).open()


MEAN, STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


def as_tensor(image):
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(60, 91), (91, 60), (50, 50), (20, 300), (7, 5)])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_crop_is_clips_recipe(size, kind):
    image, side = noise(*size), 28
    spec = ImageSpec((side, side), MEAN, STD, "crop", kind)
    short = min(size)
    scaled = image.resize(
        tuple(side if length == short else int(side * length / short) for length in size),
        getattr(Image.Resampling, kind.upper()),
    )
    left, top = (scaled.width - side) // 2, (scaled.height - side) // 2
    expected = as_tensor(scaled.crop((left, top, left + side, top + side)))
    torch.testing.assert_close(to_tensor(image, spec), expected, atol=1e-6, rtol=1e-6)


def test_squash_scales_both_sides():
    image = noise(31, 64)
    expected = as_tensor(image.resize((20, 12), Image.Resampling.BICUBIC))
    assert torch.allclose(to_tensor(image, ImageSpec((12, 20), MEAN, STD)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 5), (4, 9)])
def test_pad_fills_up_with_the_mean_colour(size):
    image = noise(*size)
    pixels = to_tensor(image, ImageSpec((9, 9), MEAN, STD, "pad"))
    left, top = (9 - size[0]) // 2, (9 - size[1]) // 2
    inside = pixels[:, top : top + size[1], left : left + size[0]]
    torch.testing.assert_close(inside, as_tensor(image), atol=1e-6, rtol=1e-6)
    outside = torch.ones(9, 9, dtype=torch.bool)
    outside[top : top + size[1], left : left + size[0]] = False
    # The mean colour is rounded down to whole values, so it is zero up to one step of 255.
    assert pixels[:, outside].abs().max() < 1 / 255 / min(STD)


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_line_of_pixels_does_not_fill_the_memory(resize):
    for size in ((200_000, 1), (1, 200_000)):
        assert to_tensor(Image.new("RGB", size), ImageSpec((32, 32), resize=resize)).shape == (3, 32, 32)


def test_a_crop_that_is_no_square():
    image = noise(100, 40)
    assert to_tensor(image, ImageSpec((20, 30), resize="crop")).shape == (3, 20, 30)
    assert to_tensor(image, ImageSpec((30, 20), resize="crop")).shape == (3, 30, 20)
