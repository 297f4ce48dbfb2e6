"""Language models of `transformers` as backbones: decoders (OPT, Llama, Mistral ...) and encoder-decoders (T5)."""

from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrnn.backbones.attention_mask import extend_segments, positions_and_mask, refuse_scan
from mmrnn.backbones.hf_config import decoder_faults, encoder_decoder_faults, make_config
from mmrnn.backbones.hf_fields import read_fields
from mmrnn.backbones.hf_native import change_logits, fill_cache, native_masks, read_cache, recompute_layers, recomputes
from mmrnn.layers.rebuilt import Rebuilt
from mmrnn.types import (
    ANY_SEGMENT,
    IGNORE,
    PADDING_SEGMENT,
    Backbone,
    BlockHooks,
    ChecksKnobs,
    NonNegativeInt,
    PositiveInt,
    Scan,
    Sequence,
    State,
    StateOrigin,
)


class HFDecoder(Rebuilt, Backbone, ChecksKnobs):
    """Causal language model of `transformers`, randomly initialised.

    Args:
        name: architecture (`model_type` in transformers: `opt`, `persimmon`).
        vocab: rows of the embedding and of the head.
        width: model dimension `d`.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none. In
            training mode, where that is done, no state is kept.
        arch: further fields of the configuration, under their names in transformers.

    Raises:
        ValueError: the architecture is none of `hf_config.DECODERS`, or its sizes are refused.
    """

    recurrent = False
    hooks = ()

    def __init__(
        self,
        *,
        name: str = "opt",
        vocab: PositiveInt = 50272,
        width: PositiveInt = 2560,
        grad_checkpointing: NonNegativeInt = 0,
        arch: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from transformers import AutoModelForCausalLM

        _refuse(decoder_faults(name, vocab, width, arch))
        config = make_config(name, vocab_size=vocab, hidden_size=width, **(arch or {}))
        self.vocab, self.width, self.depth = vocab, width, config.num_hidden_layers
        self.model = AutoModelForCausalLM.from_config(config)
        self.grad_checkpointing = recompute_layers(self.model, grad_checkpointing)
        self.state_origin = StateOrigin(name, {"depth": self.depth, "width": width})
        self._fields = read_fields(config)
        self._names = frozenset(signature(self.model.base_model.forward).parameters)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        return self.model.get_input_embeddings()(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states."""
        return change_logits(self.model.get_output_embeddings()(hidden), self._fields)

    def state(self, batch: int) -> State:
        """Return empty KV caches `b h 0 k`; `shared` holds the position of the next token of each row."""
        weight = self.model.get_input_embeddings().weight
        heads, size = self._fields.kv_heads, self._fields.head_size
        empty = weight.new_zeros(batch, heads, 0, size)
        layers = tuple({"key": empty, "value": empty} for _ in range(self.depth))
        position = torch.zeros(batch, dtype=torch.long, device=weight.device)
        return State(layers, {"next_position": position}, self.state_origin)

    def forward(
        self,
        sequence: Sequence,
        state: State | None = None,
        scan: Scan | None = None,
        hook: BlockHooks | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the model over a sequence, continuing from `state`.

        Returns:
            The hidden states after the last norm, and the state after the last position.

        Raises:
            ValueError: `scan` reorders patches, or layers are to be recomputed that continue from a state.
        """
        refuse_scan(sequence, scan, self.depth)
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, len(x))
        positions, mask, shared = positions_and_mask(sequence, state)
        cache = None if recomputes(self, state) else fill_cache(state)
        if mask is not None:
            kinds = {"window": self._fields.window, "causal": sequence.attention_mask is None}
            mask = native_masks(self.model.config, x, cache, positions, mask, **kinds)
        inputs = {"position_ids": positions, "cache": cache, "past_key_values": cache}
        if "cache" in self._names:
            del inputs["past_key_values"]
        inputs = {name: value for name, value in inputs.items() if name in self._names}
        outputs = self.model.base_model(inputs_embeds=x, attention_mask=mask, use_cache=cache is not None, **inputs)
        after = State(()) if cache is None else State(read_cache(cache), shared, self.state_origin)
        return outputs.last_hidden_state, after

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what transformers, or this wrapper around it, cannot do with an architecture and its sizes."""
        return decoder_faults(*(knobs[name] for name in ("name", "vocab", "width", "arch")))


class HFEncoderDecoder(Rebuilt, Backbone, ChecksKnobs):
    """T5 of `transformers` as a language model: the encoder reads the context, the decoder the reply.

    The reply starts at the first target; a sequence without targets (a prompt) is all context. The hidden state of a
    position predicts the next token, as with every backbone: from the last token of the context on it is the
    decoder's, before it is zero.

    Args:
        name: architecture (`model_type` in transformers: `t5`, `mt5`, `umt5`).
        vocab: rows of the embedding and of the head.
        width: model dimension `d`.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none. In
            training mode, where that is done, no state is kept.
        arch: further fields of the configuration, under their names in transformers.

    Raises:
        ValueError: the architecture is none of `hf_config.ENCODER_DECODERS`, or its sizes are refused.
    """

    recurrent = False
    causal = False
    hooks = ()
    axes = 0

    def __init__(
        self,
        *,
        name: str = "t5",
        vocab: PositiveInt = 32128,
        width: PositiveInt = 2048,
        grad_checkpointing: NonNegativeInt = 0,
        arch: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from transformers import AutoModelForSeq2SeqLM

        _refuse(encoder_decoder_faults(name, vocab, width, arch))
        config = make_config(name, vocab_size=vocab, d_model=width, **(arch or {}))
        config.pad_token_id = config.decoder_start_token_id = 0
        self.vocab, self.width, self.depth = vocab, width, config.num_decoder_layers
        self.model = AutoModelForSeq2SeqLM.from_config(config)
        self.grad_checkpointing = recompute_layers(self.model, grad_checkpointing)
        if (arch or {}).get("tie_word_embeddings") is False:
            # transformers 5 ties the head of every new T5; that of FlanT5 (T5 1.1) has its own weights.
            head = self.model.get_output_embeddings()
            head.weight = nn.Parameter(torch.randn_like(head.weight) * width**-0.5)
        self.state_origin = StateOrigin(name, {"depth": self.depth, "width": width})
        self._fields = read_fields(config)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        return self.model.get_input_embeddings()(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states."""
        if self._fields.scales_output:
            hidden = hidden * self.width**-0.5
        return self.model.get_output_embeddings()(hidden)

    def state(self, batch: int) -> State:
        """Return empty KV caches of the decoder; `shared` gets the encoder output once the context was read."""
        weight = self.model.get_input_embeddings().weight
        heads, size = self._fields.kv_heads, self._fields.head_size
        empty = weight.new_zeros(batch, heads, 0, size)
        return State(tuple({"key": empty, "value": empty} for _ in range(self.depth)), origin=self.state_origin)

    def forward(
        self,
        sequence: Sequence,
        state: State | None = None,
        scan: Scan | None = None,
        hook: BlockHooks | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Encode the context and decode the reply; from a state that holds a context, decode more of the reply.

        Returns:
            The hidden states, zero before the last token of the context, and the state after the last position.

        Raises:
            ValueError: rows with several segments and targets, a `scan` that reorders patches, or layers are to be
                recomputed that continue from a state.
        """
        refuse_scan(sequence, scan, self.depth)
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, len(x))
        if "encoder_output" in state.shared:
            return self._decode(x, state.shared["encoder_output"], state.shared.get("encoder_mask"), state)
        b, t, _ = x.shape
        steps = torch.arange(t, device=x.device)
        reply_start = _first_target(sequence)
        # Without targets both are t, which needs no data: so it works on the meta device.
        shortest, longest = (t, t) if sequence.labels is None else (int(reply_start.min()), int(reply_start.max()))
        mask = _context_mask(sequence, reply_start)
        mask = None if mask is None else mask[:, :longest].long()
        encoded = self.model.get_encoder()(inputs_embeds=x[:, :longest], attention_mask=mask).last_hidden_state
        # The decoder reads the start token, then the reply; its first output belongs to the last token of the context.
        start_token = self.embed(torch.zeros(b, 1, dtype=torch.long, device=x.device))
        reply = (reply_start[:, None] + steps[: t - shortest]).clamp(max=t - 1)
        inputs = torch.cat([start_token, x.gather(1, reply[..., None].expand(-1, -1, x.shape[-1]))], dim=1)
        out, after = self._decode(inputs, encoded, mask, state)
        offset = steps - reply_start[:, None] + 1
        hidden = out.gather(1, offset.clamp(0, out.shape[1] - 1)[..., None].expand(-1, -1, out.shape[-1]))
        return hidden * (offset >= 0)[..., None], after

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what transformers, or this wrapper around it, cannot do with an architecture and its sizes."""
        return encoder_decoder_faults(*(knobs[name] for name in ("name", "vocab", "width", "arch")))

    def _decode(self, x: Tensor, encoded: Tensor, mask: Tensor | None, state: State) -> tuple[Tensor, State]:
        from transformers import DynamicCache, EncoderDecoderCache

        shared = {"encoder_output": encoded} if mask is None else {"encoder_output": encoded, "encoder_mask": mask}
        segments = state.shared.get("segments")
        if segments is not None:
            shared["segments"] = segments = extend_segments(segments, None, segments.shape[1], x.shape[1])
        recomputed = recomputes(self, state)
        cache = None if recomputed else EncoderDecoderCache(fill_cache(state), DynamicCache())
        decoder = self.model.get_decoder()
        name = "cache" if "cache" in signature(decoder.forward).parameters else "past_key_values"
        outputs = decoder(
            inputs_embeds=x,
            encoder_hidden_states=encoded,
            encoder_attention_mask=None if mask is None else ((mask > 0) | (mask == ANY_SEGMENT)).long(),
            attention_mask=None if segments is None else (segments != PADDING_SEGMENT).long(),
            use_cache=not recomputed,
            **{name: cache},
        )
        if cache is None:
            return outputs.last_hidden_state, State(())
        layers = read_cache(cache.self_attention_cache)
        return outputs.last_hidden_state, State(layers, shared, self.state_origin)


def _refuse(faults: Iterator[tuple[str, str]]) -> None:
    found = [f"{name}: {fault}" for name, fault in faults]
    if found:
        raise ValueError("; ".join(found))


def _first_target(sequence: Sequence) -> Int[Tensor, " b"]:
    """Index at which the reply of each row starts, at least 1; the length of the row where there is none."""
    b, t = sequence.ids.shape
    if sequence.labels is None:
        return torch.full((b,), t, device=sequence.ids.device)
    target = sequence.labels != IGNORE
    return torch.where(target.any(1), target.int().argmax(1), t).clamp(min=1)


def _context_mask(sequence: Sequence, reply_start: Int[Tensor, " b"]) -> Bool[Tensor, "b t"] | None:
    """True at the context of each row, without padding; None: the whole sequence is context, without padding."""
    if sequence.labels is None and sequence.segments is None:
        return None
    mask = torch.arange(sequence.ids.shape[1], device=sequence.ids.device) < reply_start[:, None]
    if sequence.segments is None:
        return mask
    has_targets = sequence.labels is not None and bool((sequence.labels != IGNORE).any())
    if has_targets and bool((sequence.segments != sequence.segments[:, :1]).any()):
        raise ValueError("an encoder-decoder reads one sample per row; use batching=bucketed")
    return mask & (sequence.segments == sequence.segments[:, -1:])
