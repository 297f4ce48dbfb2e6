"""A model on disk: its tensors, the configuration that it was built from, and a card for people.

A checkpoint may hold a part of the tensors (a projector, what a stage has trained). Then its configuration names the
base that the rest comes from: files in `weights`, or the published weights of a part (`pretrained`).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmrnn.assistant import Assistant
from mmrnn.config import ConfigError, build, make, plain
from mmrnn.faults import sources
from mmrnn.training.stage import named
from mmrnn.vlm import VLM
from mmrnn.weights import WeightsError, own
from mmrnn.weights import load as load_weights
from mmrnn.weights.files import LARGEST_TEXT, read, replace_file

CONFIG, CARD = "config.yaml", "README.md"


def save(
    folder: str | Path,
    model: VLM,
    cfg: Mapping[str, Any],
    *,
    only: Sequence[str] | None = None,
    limit: int = own.LIMIT,
) -> None:
    """Write the model, its configuration and its card; until all of it is there, what was there before stays.

    Args:
        only: parts (`connector`) or globs of names; what they leave out must come from the base that `cfg` names.
        limit: bytes of a file; more become shards.

    Raises:
        ValueError: `only` fits no tensor, or nothing says where the rest comes from.
    """
    cfg = plain(cfg)
    # What an objective learns serves training alone.
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith("objective.")}
    if only is not None:
        tensors = {name: value for name, value in tensors.items() if named(name, tuple(only))}
        if not tensors:
            raise ValueError(f"only={list(only)} fits no tensor of the model")
        check_base(cfg, [name for name in model.state_dict() if name not in tensors])
    texts = {CONFIG: _yaml(cfg), CARD: describe(model, cfg, tensors)}
    own.write(Path(folder), tensors, texts, limit)


def save_config(folder: str | Path, cfg: Mapping[str, Any]) -> None:
    replace_file(Path(folder) / CONFIG, lambda path: path.write_text(_yaml(plain(cfg)), encoding="utf-8"))


def read_config(folder: str | Path) -> dict[str, Any] | None:
    """The configuration in a folder, or None where there is none.

    Raises:
        ConfigError: the file is no configuration.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise ConfigError(f"{path} is no configuration: it has {path.stat().st_size} bytes")
        cfg = yaml.load(path.read_text(encoding="utf-8"), Plain)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise ConfigError(f"{path} is no configuration: {str(fault).splitlines()[0]}") from fault
    if not isinstance(cfg, dict):
        raise ConfigError(f"{path} is no configuration")
    return cfg


def load(folder: str | Path, *, trusted: Collection[str] = ()) -> Assistant:
    """The model in a folder that `save` or a run has left, or in such a repository of the hub; ready to be asked.

    The files are not trusted: classes outside mmrnn are built only when their package is named.

    Args:
        folder: a path, or `owner/name`.
        trusted: packages beside mmrnn whose classes the configuration may name.

    Raises:
        ConfigError: the folder holds no model, or its configuration does not fit.
        WeightsError: the tensors do not fit the configuration.
        ConnectionError: the hub cannot be reached.
    """
    model, cfg = load_model(folder, trusted=trusted)
    tokenizer, prompt = make(cfg["tokenizer"], trusted=trusted), make(cfg["prompt"], trusted=trusted)
    return Assistant(model.eval(), tokenizer, prompt)


def load_model(folder: str | Path, *, trusted: Collection[str] = ()) -> tuple[VLM, dict[str, Any]]:
    """The model alone, and its configuration. See `load`."""
    from mmrnn.weights import hub

    if not Path(folder).exists() and hub.is_id(folder):
        folder = hub.fetch(str(folder), also=[CONFIG])
    folder = Path(folder)
    own.settle(folder)
    cfg, file = read_config(folder), own.weight_file(folder)
    if cfg is None or file is None:
        raise ConfigError(f"{folder} holds no model ({CONFIG} and {own.MODEL}); name the folder of a finished run")
    tensors = read(file)
    model = build({**cfg, "weights": {}}, trusted=trusted, filled=True)
    missing = [name for name in model.state_dict() if name not in tensors]
    try:
        if missing and set(tensors) <= set(model.state_dict()):
            check_base(cfg, missing)
            model = build(cfg, trusted=trusted)
        load_weights(model, tensors, format="mmrnn", strict=not missing)
    except (WeightsError, Uncovered) as fault:
        raise WeightsError(f"{file} does not fit {CONFIG} beside it: {fault}") from fault
    model.config = cfg
    return model, cfg


class Plain(yaml.SafeLoader):
    """YAML without references: a few lines of them unfold into more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds references (*name), which no configuration of ours has")
        return super().compose_node(parent, index)


class Written(yaml.SafeDumper):
    """YAML without references."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


class Uncovered(ValueError):
    """Nothing says where some tensors come from."""


def check_base(cfg: Mapping[str, Any], names: Sequence[str]) -> None:
    """
    Raises:
        Uncovered: a configuration does not say where tensors come from that a checkpoint does not hold.
    """
    bases = {path for path, source in sources(cfg.get("weights") or {}) if source is not None}
    for part in ("encoder", "connector", "backbone"):
        if (cfg.get(part) or {}).get("pretrained"):
            bases.add(part)
    lost = [name for name in names if not ("model" in bases or named(name, tuple(bases)))]
    if lost:
        raise Uncovered(
            f"{lost[0]} (one of {len(lost)}) is not in the checkpoint, and its configuration names no base for it: "
            "set weights.model, or weights of that part"
        )


def describe(model: VLM, cfg: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """The card of a model, as the hub shows it."""
    rows = [(name, module) for name, sense in model.senses.items() for module in (sense.encoder, sense.connector)]
    parts = [f"| {name} | `{type(module).__name__}` | {_count(module):,} |" for name, module in rows]
    parts.append(f"| language | `{type(model.backbone).__name__}` | {_count(model.backbone):,} |")
    chosen = ", ".join(f"`{group}={name}`" for group, name in (cfg.get("choices") or {}).items() if name)
    left = len(model.state_dict()) - len(tensors)
    lines = [
        "---\nlibrary_name: mmrnn\npipeline_tag: image-text-to-text\ntags: [mmrnn]\n---",
        "A vision-language model of mmrnn.",
        "| part | class | parameters |\n|---|---|---|\n" + "\n".join(parts),
        *([f"Chosen: {chosen}."] if chosen else []),
        *([f"{left} tensors are not in this checkpoint: they come from the base that {CONFIG} names."] if left else []),
        '```python\nimport mmrnn\n\nprint(mmrnn.load("THIS FOLDER").ask("photo.jpg", "what is this?"))\n```',
    ]
    return "\n\n".join(lines) + "\n"


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _yaml(cfg: Mapping[str, Any]) -> str:
    return yaml.dump(cfg, Dumper=Written, sort_keys=False, allow_unicode=True)
