"""Images with flipped bytes: opened as RGB, or refused in one sentence."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrnn.data import ImageError, open_image

pytestmark = pytest.mark.slow

many = settings(max_examples=400, deadline=None, derandomize=True)


def contents():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    moving = {"save_all": True, "append_images": [noise.rotate(90), noise.rotate(180)]}
    files = {
        "PNG": (noise, {}),
        "PNG palette": (noise.quantize(8), {"transparency": b"\0\x80\xff"}),
        "PNG 16": (Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300), {}),
        "PNG moving": (noise, moving),
        "JPEG": (noise, {"exif": exif}),
        "JPEG CMYK": (noise.convert("CMYK"), {}),
        "GIF": (noise, moving),
        "WEBP": (noise.convert("RGBA"), moving),
        "BMP": (noise, {}),
        "TIFF": (noise, {"compression": "tiff_lzw"}),
        "TIFF float": (Image.fromarray(np.linspace(0, 1, 192, dtype=np.float32).reshape(12, 16)), {}),
        "PPM": (noise, {}),
        "ICO": (noise.convert("RGBA"), {}),
        "TGA": (noise, {}),
        "JPEG2000": (noise, {}),
        "AVIF": (noise, {}),
    }
    Image.init()
    made = {}
    for name, (image, options) in files.items():
        format = name.split()[0]
        if format in Image.SAVE:
            buffer = BytesIO()
            image.save(buffer, format, **options)
            made[name] = buffer.getvalue()
    return made


FILES = contents()


@pytest.mark.parametrize("name", FILES)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    start=st.booleans(),
    cut=st.one_of(st.none(), st.integers(0, 10**6)),
    frame=st.one_of(st.none(), st.sampled_from([0, 1, 2, 7])),
)
@many
def test_a_damaged_image_is_opened_or_named(name, flips, start, cut, frame):
    content = bytearray(FILES[name])
    for place, value in flips:
        content[place % (min(len(content), 64) if start else len(content))] = value
    content = bytes(content[: None if cut is None else cut % (len(content) + 1)])
    try:
        image = open_image(
            content, max_pixels=100_000, frame=None if frame is None else lambda total: min(frame, total - 1)
        )
    except ImageError as error:
        image, fault = None, str(error)
    if image is None:
        assert fault.startswith(f"an image of {len(content)} bytes")
        return
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= 100_000
    assert open_image(image).tobytes() == image.tobytes()


@given(
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from(["b1", "u1", "u2", "i2", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "O", "U1", "S1", "M8[s]"]),
    st.randoms(use_true_random=False),
)
@many
def test_an_array_is_opened_or_named(shape, kind, random):
    raw = np.frombuffer(random.randbytes(8 * int(np.prod(shape))), np.uint8)
    array = np.zeros(shape, kind)
    if array.dtype.kind in "biuf":
        array = np.resize(raw, array.nbytes).view(array.dtype).reshape(shape) if array.nbytes else array
    try:
        image = open_image(array)
    except ImageError as error:
        image, fault = None, str(error)
    if image is None:
        assert fault.startswith("an array is broken: it")
        return
    assert (image.mode, image.size) == ("RGB", (shape[1], shape[0]))
