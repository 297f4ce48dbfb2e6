"""Compatibility of parts that are valid on their own.

Classes are compared by the attributes of their contracts (`mmrnn.types.parts`); nothing is built.
"""

from collections.abc import Collection, Iterator
from typing import Any

from mmrnn.config.instantiate import find_target, instantiate, parameters
from mmrnn.config.tree import Tree, cards, get_node, is_card
from mmrnn.types import BackboneTraits, Connector, Objective, fulfils


def mismatches(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    """Yield the faults of parts that do not fit together; every card of the tree must be valid."""
    backbone = find_target(tree["backbone"], trusted)
    traits = _traits(tree["backbone"], backbone, trusted)
    yield from _order_faults(tree, backbone, traits, trusted)
    yield from _hook_faults(tree, backbone, traits, trusted)
    yield from _mark_faults(tree)
    yield from _video_faults(tree, trusted)
    if get_node(tree, "evaluate.distance", ()):
        yield from _distance_faults(tree, backbone, trusted)
    if tree.get("train_chunk"):
        yield from _chunk_faults(tree, backbone, traits, trusted)
    elif tree.get("horizon", 1) != 1:
        yield "horizon: it counts pieces of a row, but rows are read at once; set train_chunk, or horizon=1"
    ids, rows = _tokenizer_vocab(tree.get("tokenizer"), trusted), tree["backbone"].get("vocab")
    if ids is not None and rows is not None and ids > rows:
        yield (
            f"tokenizer: it has {ids} ids, but backbone.vocab={rows}; choose the tokenizer of that backbone, "
            f"or set backbone.vocab={ids}"
        )


def quantizes(tree: Tree, trusted: Collection[str]) -> bool:
    """Return True for a model whose layers hold codes in place of weights."""
    quantizer = _found(tree.get("quantize"), trusted)
    return quantizer is not None and quantizer.quantizes


def _traits(card: Tree, backbone: Any, trusted: Collection[str]) -> BackboneTraits:
    """Facts that the knobs of a backbone decide; cards among them become functions, and nothing is built."""
    known = parameters(backbone)
    knobs = {name: one.default for name, one in known.items() if one.kind is one.KEYWORD_ONLY}
    return backbone.traits(knobs | {name: instantiate(card[name], trusted=trusted) for name in knobs if name in card})


def _order_faults(tree: Tree, backbone: Any, traits: BackboneTraits, trusted: Collection[str]) -> Iterator[str]:
    """Scans, positions, masks and packed rows that the backbone does not support."""
    name = backbone.__name__
    scan, position, mask = (_found(tree.get(group), trusted) for group in ("scan", "position", "mask"))
    if scan is not None and scan.reorders and not traits.scans:
        yield (
            f"scan: {scan.__name__} reorders patches for recurrent backbones, but {name} attends to all of them; "
            "use scan=forward"
        )
    if traits.recurrent:
        for group, own, policy in (("position", "sequential", position), ("mask", "causal", mask)):
            if policy is not None and not (policy.sequential if group == "position" else policy.causal):
                yield (
                    f"{group}: {name} is recurrent and cannot use {policy.__name__}; "
                    f"use {group}={own}, and encode image structure by scan and by row separators"
                )
        return
    axes = traits.axes
    if position is not None and position.axes not in axes and not (axes == (0,) and position.sequential):
        way = "glm_2d" if axes == (2,) else "sequential"
        yield (
            f"position: {position.__name__} gives {position.axes} position ids a token, but {name} takes "
            f"{' or '.join(map(str, axes))}; use position={way}"
        )
    if axes == (0,) and mask is not None and not mask.causal:
        yield f"mask: the encoder of {name} is bidirectional already; use mask=causal"
    if axes == (0,) and (batching := _found(tree.get("batching"), trusted)) and batching.packs:
        yield f"batching: {name} reads one sample a row, and {batching.__name__} packs several; use batching=bucketed"


def _chunk_faults(tree: Tree, backbone: Any, traits: BackboneTraits, trusted: Collection[str]) -> Iterator[str]:
    """Backbones without a state of constant size, and objectives that need a whole batch."""
    if not traits.recurrent:
        yield (
            f"train_chunk: {backbone.__name__} attends to all positions before, so that its memory grows with the text "
            "all the same; use train_chunk=0, or a recurrent backbone"
        )
    objective = _found(tree.get("objective"), trusted)
    if objective is not None and objective.target_weights is Objective.target_weights:
        yield (
            f"train_chunk: {objective.__name__} is no sum over targets and needs a whole batch; use train_chunk=0, or "
            "objective=lm"
        )


def _distance_faults(tree: Tree, backbone: Any, trusted: Collection[str]) -> Iterator[str]:
    """Text behind the images of a question, for a model that reads its prompt as a whole."""
    mask = _found(tree.get("mask"), trusted)
    whole = None if mask is None or mask.causal else mask
    if not backbone.causal or whole is not None:
        yield (
            f"evaluate.distance: {(whole or backbone).__name__} reads a prompt as a whole, so that no state behind an "
            "image can be continued; leave it out (evaluate.distance=[]), or use a causal backbone with mask=causal"
        )


def _hook_faults(tree: Tree, backbone: Any, traits: BackboneTraits, trusted: Collection[str]) -> Iterator[str]:
    """Hooks that the backbone does not support, or whose tokens the connector does not produce."""
    hook = _found(tree.get("hook"), trusted)
    lacking = [need for need in hook.needs if need not in backbone.hooks] if hook else []
    if lacking:
        other = "; use hook=mlp_expert" if traits.scans and "mlp" in backbone.hooks else ""
        what = "input and output" if lacking[0] == "layer" else lacking[0]
        yield f"hook: {hook.__name__} changes the {what} of a block, which {backbone.__name__} does not support{other}"
    parts = [find_target(card, trusted) for _, card in cards(tree.get("connector"))]
    offered = any(part.for_cross_attention for part in parts if fulfils(part, Connector))
    wanted = hook is not None and hook.needs_cross_attention_tokens
    if offered and not wanted:
        why = f"{hook.__name__} does not attend to them" if hook else "no hook attends to them"
        yield f"hook: the connector's tokens fill no slots of the text, and {why}; use hook=gated_cross_attention"
    if wanted and not offered:
        why = "attends to tokens that fill no slots of the text, but those of this connector do"
        yield f"connector: {hook.__name__} {why}; use connector=flamingo"


def _mark_faults(tree: Tree) -> Iterator[str]:
    """Marks of the prompt for which the backbone has no embedding."""
    rows, prompt = tree["backbone"].get("vocab"), tree.get("prompt")
    for name in ("image_mark", "text_mark") if is_card(prompt) else ():
        mark = prompt.get(name)
        if mark is not None and rows is not None and mark >= rows:
            way = f"as backbone.vocab={rows}; set backbone.vocab={mark + 1}"
            yield f"prompt.{name}: the backbone has no id {mark}, {way}"


def _video_faults(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    """Frames of a video in one input, where the encoder reads another number."""
    data, encoder = tree.get("data"), tree.get("encoder")
    if not (is_card(data) and is_card(encoder) and data.get("temporal_patch", 1) > 1):
        return
    knob = parameters(find_target(encoder, trusted)).get("temporal_patch")
    read = encoder.get("temporal_patch", knob.default) if knob else 1
    if read != data["temporal_patch"]:
        yield (
            f"data.temporal_patch: {data['temporal_patch']} frames of a video are one input, but the encoder reads "
            f"{read}; set data.temporal_patch={read}"
        )


def _found(card: Any, trusted: Collection[str]) -> Any:
    return find_target(card, trusted) if is_card(card) else None


def _tokenizer_vocab(card: Any, trusted: Collection[str]) -> int | None:
    """Vocabulary size of a tokenizer, if its card or its class sets it."""
    if not is_card(card):
        return None
    return card["vocab"] if "vocab" in card else find_target(card, trusted).vocab
