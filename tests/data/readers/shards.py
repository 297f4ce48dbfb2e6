"""Shards that the tests of the readers write."""

import io
import json
import tarfile
from itertools import islice

from PIL import Image

from mmrnn.data.batching import Plain
from mmrnn.types import StepSpec


def image_bytes(colour="red", size=(4, 3), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def dialogue(reply="A mug", question="<image>\nWhat?", **keys):
    return {**keys, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]}


def rank_batches(order, *, batch_size, start, stop, rank=0, ranks=1):
    """Sample indices of one rank at each step from `start` to `stop`, as in training; `batch_size` is of a rank."""
    spec = StepSpec(batch_size * ranks, ranks=ranks)
    plans = Plain().plans(start * spec.batch_size, spec)
    return [[order(n) for n in plan[rank][0]] for plan in islice(plans, stop - start)]


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
