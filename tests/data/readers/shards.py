"""Shards that the tests of the readers write."""

import io
import json
import tarfile

from PIL import Image


def image_bytes(colour="red", size=(4, 3), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def dialogue(reply="A mug", question="<image>\nWhat?", **keys):
    return {**keys, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]}


def write_tar(path, members, mode="w"):
    """Writes (name, content) pairs, content being bytes, text, an object for JSON, or a TarInfo."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            content = content if isinstance(content, bytes | str) else json.dumps(content)
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)
