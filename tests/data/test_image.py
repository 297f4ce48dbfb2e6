"""Images from files of every kind and fault, and as tensors."""

import os
import struct
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.data import ImageError, ImageFile, image, open_image, to_tensor
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
    for path in (tmp_path / "none.png", f"{tmp_path}/a\0.png"):
        with pytest.raises(ImageError, match=str(tmp_path)):
            open_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_regular_files_alone_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / "fifo.png", "/dev/zero", "/dev/null", tmp_path):
        with pytest.raises(ImageError, match=f"{path} is no regular file"):
            open_image(path)


def test_a_file_of_any_size_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(saved(noise(5, 5)))
    with path.open("ab") as file:
        file.truncate(image.MAX_BYTES + 1)  # a hole: no bytes on the disk
    with pytest.raises(ImageError, match=r"a\.png has 536870913 bytes, 536870912 are allowed"):
        open_image(path)


def test_a_name_of_any_length_is_one_sentence(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be read: .*File name too long"):
        open_image(tmp_path / ("a" * 300 + ".png"))


@pytest.mark.parametrize("size", [(1, 60_000_000), (60_000_000, 1)])
def test_a_line_of_millions_of_pixels_is_refused(size):
    """Within the limit of pixels; scaled to a square, a row of it would be millions of times as wide."""
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels, sides of 65536 are allowed"):
        open_image(png_of(*size))


@pytest.mark.parametrize("before", [b"P6\n#", b"P5 2 #", b"P6\n2 2\n#", b"P4\n2\n#", b"P6" + b"\n" * 70_000])
def test_the_header_of_a_ppm_is_bounded(tmp_path, before):
    """Pillow reads it a byte at a time: this comment took it ten seconds."""
    path = tmp_path / "a.ppm"
    path.write_bytes(before + b"x" * 50_000_000 + b"\n2 2\n255\n" + b"0" * 12)
    begun = time.process_time()
    with pytest.raises(ImageError, match=r"a\.ppm has a header of more than 65536 bytes, or is not an image"):
        open_image(path)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("mode", "content"),
    [
        ("RGB", b"P6\n# made by hand\n#\n200 # wide\n200\n255\n" + b"0" * 120_000),
        ("L", b"P5 200 200 255 " + b"0" * 40_000),
        ("1", b"P4\n#x\n2000 2000\n" + b"0" * 500_000),
        ("L", b"P2\n300 300\n255\n" + b"48 " * 90_000),
    ],
)
def test_a_ppm_with_comments_is_read(mode, content):
    assert np.array_equal(np.asarray(open_image(content)), np.asarray(Image.open(BytesIO(content)).convert("RGB")))


def test_arrays_are_images(tmp_path):
    """An array gives the pixels of the file that it is saved in, whatever its depth."""
    colours = np.asarray(noise(6, 5))
    grey, alpha = colours[..., :1], np.concatenate((colours, colours[..., :1]), 2)
    for array in (colours, grey[..., 0], grey, alpha, alpha[..., 2:], colours > 99):
        array = array if array.dtype == np.uint8 else array[..., 0]
        file = saved(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))
        assert np.array_equal(np.asarray(open_image(array)), np.asarray(open_image(file)))
    overshot = np.array([[-0.02, 0.5, 1.03]])
    assert np.array_equal(np.asarray(open_image(overshot))[0, :, 0], [0, 128, 255])
    sixteen = colours.astype(np.uint16) * 257
    for array in (
        sixteen,
        sixteen.astype(np.int64),
        colours.astype(np.int32),
        colours.astype(np.int16),
        colours / 255,
        colours.astype(float),
    ):
        assert np.array_equal(np.asarray(open_image(array)), colours), array.dtype
    assert np.array_equal(np.asarray(open_image(grey[..., 0].astype(np.uint16) * 257))[..., :1], grey)
    floats = Image.fromarray((grey[..., 0] / 255).astype(np.float32))
    assert np.array_equal(np.asarray(open_image(floats))[..., :1], grey)
    assert np.array_equal(np.asarray(open_image(saved(floats, "TIFF")))[..., :1], grey)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 5)), r"its shape \(3 x 4 x 5\) must be height x width, or height x width x 1 to 4 channels"),
        (np.zeros(3), r"its shape \(3\) must be"),
        (np.zeros((0, 4, 3), np.uint8), r"its shape \(0 x 4 x 3\) must be"),
        (np.full((2, 2), np.nan), "it holds values that are not finite"),
        (np.full((2, 2), np.inf, np.float32), "it holds values that are not finite"),
        (np.full((2, 2), -1.0), r"its values \(-1 to -1\) must lie from 0 to 1, or from 0 to 255"),
        (np.array([[-2.1, 2.6]]), r"its values \(-2.1 to 2.6\) must lie"),
        (np.array([[0, 1000.0]]), r"its values \(0 to 1000\) must lie"),
        (np.array([[-1, 255]]), r"its values \(-1 to 255\) must lie from 0 to 65535"),
        (np.array([[0, 65536]]), r"its values \(0 to 65536\) must lie from 0 to 65535"),
        (np.zeros((2, 2), complex), r"its values \(complex128\) must be"),
        (np.full((2, 2), "a"), "its values .* must be"),
        (np.full((2, 2), None), r"its values \(object\) must be"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(ImageError, match=f"an array is broken: {message}"):
        open_image(array)


MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16")


@pytest.mark.parametrize("mode", MODES)
def test_an_open_image_of_every_mode(mode):
    """Opened again it stays as it is, the given one is left alone, and size and turning are those of a file."""
    grey = Image.linear_gradient("L").resize((8, 4))
    given = (
        grey.convert(mode)
        if mode not in ("La", "RGBa", "PA")
        else grey.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "P")).convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    given.info["exif"] = exif.tobytes()
    before = given.tobytes()
    opened = open_image(given)
    assert (opened.mode, opened.size, opened.info) == ("RGB", (4, 8), {})
    assert (given.mode, given.size, given.tobytes()) == (mode, (8, 4), before)
    for decoding in ("composed", "load_image", "convert"):
        assert open_image(opened, decoding=decoding).tobytes() == opened.tobytes()
    assert open_image(given, decoding="convert").size == (8, 4)
    assert open_image(open_image(given, decoding="convert")).size == (8, 4)
    with pytest.raises(ImageError, match="8 x 4 pixels, 31 are allowed"):
        open_image(given, max_pixels=31)


def test_a_tensor_is_made_of_the_same_pixels(tmp_path):
    """`to_tensor` composes on white and turns upright, too."""
    spec = ImageSpec((4, 4))
    given = two("RGBA")
    assert torch.equal(to_tensor(given, spec), to_tensor(open_image(given), spec))


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
