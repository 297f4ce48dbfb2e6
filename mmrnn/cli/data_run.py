"""Actions of `mmrnn data`, and the report of each."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.cli.ask import RUNS, newest
from mmrnn.cli.reply_options import CONTROLS
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key

if TYPE_CHECKING:
    from mmrnn.data.curation.outcome import Outcome
    from mmrnn.data.left_out import LeftOut
    from mmrnn.data.readers.record_dataset import RecordDataset

LIMITS = ("min_side", "max_aspect", "max_pixels", "min_chars", "max_chars")


def run_filter(options: Namespace) -> int:
    """Filter records."""
    from mmrnn.data.curation.filter import filter_records
    from mmrnn.data.curation.output import settings_of
    from mmrnn.data.curation.rules import FilterRules

    rules = FilterRules(**{name: vars(options)[name] for name in LIMITS}, scripts=dict(options.script or ()))
    dataset, tree = _records(options, "data")
    found = filter_records(
        dataset,
        options.out,
        rules,
        **{name: vars(options)[name] for name in ("duplicates", "headers", "strict", "workers")},
        settings=settings_of(dataset, tree["data"]),
        track=_tracker("rounds of records"),
    )
    return _report(options, found, _reading(options, dataset))


def run_select(options: Namespace) -> int:
    """Select records by features."""
    from mmrnn.config.device import choose_device
    from mmrnn.data.curation.output import settings_of
    from mmrnn.inference.curation.encoder import build_encoder
    from mmrnn.inference.curation.select import Selection, select_records
    from mmrnn.training.precision import autocast

    if options.clusters is None or options.nearest is None:
        raise ConfigError("data select: set --clusters N and --nearest N, the records of each cluster that are kept")
    if not any(override_key(word) == "encoder" for word in options.words):
        raise ConfigError("data select: no encoder is chosen; set encoder=CARD (`mmrnn list encoder`)")
    device = choose_device(options.device)
    dataset, tree = _records(options, "data", "encoder")
    encoder = build_encoder(tree["encoder"], tree["weights"]["encoder"], trusted=options.trusted)
    facts = {"encoder": tree["encoder"], "precision": options.precision}
    with autocast(options.precision, device):
        found, clusters = select_records(
            dataset,
            options.out,
            encoder.to(device),
            Selection(options.clusters, options.nearest, options.seed),
            strict=options.strict,
            batch_size=options.batch_size,
            device=device,
            settings=settings_of(dataset, tree["data"]) | facts,
            track=_tracker("rounds of images"),
        )
    print(f"{clusters:,} of {options.clusters:,} clusters have images")
    return _report(options, found, _reading(options, dataset))


def run_caption(options: Namespace) -> int:
    """Caption images."""
    from mmrnn.config.device import choose_device
    from mmrnn.inference.curation.caption import caption_images
    from mmrnn.inference.curation.images import FolderImages, RecordImages
    from mmrnn.inference.load import load
    from mmrnn.training.precision import autocast

    folders = [word for word in options.words if "=" not in word]
    if len(folders) > 1 or bool(folders) == (len(options.words) > len(folders)):
        raise ConfigError("data caption: name one folder of images, or records (data=llava data.file=...)")
    device = choose_device(options.device)
    if folders:
        images: FolderImages | RecordImages = FolderImages(Path(folders[0]))
        folder = folders[0]
    else:
        dataset, tree = _records(options, "data")
        images = RecordImages(dataset, tree["data"], strict=options.strict)
        folder = images.writer(options.out).image_folder
    assistant = load(options.run or newest(RUNS), trusted=options.trusted)
    assistant.model.to(device)
    with autocast(options.precision, device):
        found = caption_images(
            assistant,
            images,
            options.out,
            options.question,
            **{name: vars(options)[name] for name in ("max_new_tokens", "strict", "batch_size")},
            track=_tracker("batches of images"),
        )
    return _report(options, found, _llava(options.out, folder))


def _records(options: Namespace, *groups: str) -> "tuple[RecordDataset, Mapping[str, Any]]":
    """The data set that the words choose, and the configuration."""
    from mmrnn.config.compose import compose
    from mmrnn.config.instantiate import instantiate
    from mmrnn.config.tree import plain
    from mmrnn.config.validate import check_groups
    from mmrnn.data.curation.outcome import require_records

    if stray := [word for word in options.words if "=" not in word]:
        raise ConfigError(f"{stray[0]}: no setting; data {options.action} reads records: data=llava data.file=FILE")
    tree = plain(compose(*options.words, dirs=options.dirs))
    check_groups(tree, groups, trusted=options.trusted)
    return require_records(instantiate(tree["data"], trusted=options.trusted)), tree


def _tracker(what: str) -> Callable[[range], Iterator[int]]:
    from mmrnn.training.trackers.console import Console

    return Console().tracker(what)


def _reading(options: Namespace, dataset: "RecordDataset") -> list[str]:
    """Words by which a training run reads the output."""
    from mmrnn.data.curation.output import RecordWriter

    writer = RecordWriter.of(dataset, options.out)
    if not writer.as_is:
        return _llava(options.out, None)
    others = [word for word in options.words if override_key(word) not in ("data.file", "data.image_folder", "encoder")]
    own = [word for word in others if override_key(word).partition(".")[0] == "data"]
    return [*own, *_llava(options.out, writer.image_folder)[1:]]


def _llava(out: Path, folder: str | None) -> list[str]:
    return ["data=llava", f"data.file={out}", *([f"data.image_folder={folder}"] if folder is not None else [])]


def _report(options: Namespace, found: "Outcome", reading: list[str]) -> int:
    """Print what is kept, and on stderr what is not."""
    total = found.total + found.invalid.total
    for what, left_out in (("dropped", found.dropped), ("not read", found.invalid)):
        for line in _reasons(left_out):
            print(f"  {what}: {line}", file=sys.stderr)
    print(f"{options.out}: {found.kept:,} of {total:,}; read it with {' '.join(reading)}".translate(CONTROLS))
    return int(not found.kept)


def _reasons(left_out: "LeftOut") -> Iterator[str]:
    for reason, row in left_out.record()["reasons"].items():
        yield f"{row['samples']:,} x {reason} (first: {row['first'] or 'no id'})".translate(CONTROLS)
