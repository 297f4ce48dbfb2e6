"""Language models of `transformers`: decoders (OPT, Persimmon) and encoder-decoders (T5) as backbones."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmrnn.backbones.attention_mask import positions_and_mask, refuse_scan
from mmrnn.types import IGNORE, Backbone, BlockHooks, Scan, Sequence, State


class HFDecoder(nn.Module, Backbone):
    """A causal language model of `transformers` by the name of its architecture, without weights.

    Args:
        name: of the architecture (`opt`, `persimmon`).
        width: of its hidden states.
        arch: the other sizes, as transformers calls them.

    Raises:
        ValueError: no such architecture, or another width than it has.
    """

    recurrent = False
    hooks = ()

    def __init__(
        self,
        *,
        name: str = "opt",
        vocab: int = 50272,
        width: int = 2560,
        arch: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from transformers import AutoModelForCausalLM

        config = make_config(name, vocab_size=vocab, hidden_size=width, **(arch or {}))
        self.vocab, self.width, self.depth = vocab, width, config.num_hidden_layers
        self.model = AutoModelForCausalLM.from_config(config)
        heads = config.num_attention_heads
        self._cache = getattr(config, "num_key_value_heads", None) or heads, width // heads

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.model.get_input_embeddings()(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        return self.model.get_output_embeddings()(hidden)

    def state(self, batch: int) -> State:
        """Empty caches, and the position of the next token of every row."""
        weight = self.model.get_input_embeddings().weight
        heads, size = self._cache
        empty = weight.new_zeros(batch, heads, 0, size)
        layers = tuple({"key": empty, "value": empty} for _ in range(self.depth))
        return State(layers, {"next_position": torch.zeros(batch, dtype=torch.long, device=weight.device)})

    def forward(
        self,
        sequence: Sequence,
        state: State | None = None,
        scan: Scan | None = None,
        hook: BlockHooks | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Read a sequence from `state` on.

        Raises:
            ValueError: a scan that moves patches.
        """
        refuse_scan(sequence, scan, self.depth)
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.state(len(x)) if state is None else state
        positions, mask, shared = positions_and_mask(sequence, state)
        answer = self.model.base_model(
            inputs_embeds=x,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=fill_cache(state),
            use_cache=True,
        )
        return answer.last_hidden_state, State(read_cache(answer.past_key_values), shared)


class HFEncoderDecoder(nn.Module, Backbone):
    """A T5 of `transformers` as a language model that goes on: what comes before the first target is the encoder's.

    The hidden state of a position predicts the token after it, as everywhere; the decoder gives those from the last
    token of the context on, the others are zero. A prompt, which has no targets, is context as a whole.

    Args:
        name: of the architecture (`t5`, and `mt5` and others like it).
        width: of its hidden states.
        arch: the other sizes, as transformers calls them.
    """

    recurrent = False
    hooks = ()
    axes = 0

    def __init__(
        self,
        *,
        name: str = "t5",
        vocab: int = 32128,
        width: int = 2048,
        arch: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from transformers import AutoModelForSeq2SeqLM

        config = make_config(name, vocab_size=vocab, d_model=width, **(arch or {}))
        config.pad_token_id = config.decoder_start_token_id = 0
        self.vocab, self.width, self.depth = vocab, width, config.num_decoder_layers
        self.model = AutoModelForSeq2SeqLM.from_config(config)
        if (arch or {}).get("tie_word_embeddings") is False:
            # transformers 5 ties the head of every T5 until it reads a file; FlanT5 (T5 1.1) has one of its own.
            head = self.model.get_output_embeddings()
            head.weight = nn.Parameter(torch.randn_like(head.weight) * width**-0.5)
        self._cache = config.num_heads, config.d_kv

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.model.get_input_embeddings()(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        if getattr(self.model.config, "scale_decoder_outputs", False):
            hidden = hidden * self.width**-0.5
        return self.model.get_output_embeddings()(hidden)

    def state(self, batch: int) -> State:
        """Empty caches of the decoder; the context joins them when it is read."""
        weight = self.model.get_input_embeddings().weight
        heads, size = self._cache
        empty = weight.new_zeros(batch, heads, 0, size)
        return State(tuple({"key": empty, "value": empty} for _ in range(self.depth)))

    def forward(
        self,
        sequence: Sequence,
        state: State | None = None,
        scan: Scan | None = None,
        hook: BlockHooks | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Read a sequence: the context, and the reply where there is one; or, from a state, more of the reply.

        Raises:
            ValueError: packed rows, or a scan that moves patches.
        """
        refuse_scan(sequence, scan, self.depth)
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.state(len(x)) if state is None else state
        if "context" in state.shared:
            return self._decode(x, state.shared["context"], state.shared.get("known"), state)
        b, t, _ = x.shape
        steps = torch.arange(t, device=x.device)
        begin = _first_target(sequence)
        # Without targets both are the length, and nothing has to be computed to know it (the meta device could not).
        least, most = (t, t) if sequence.labels is None else (int(begin.min()), int(begin.max()))
        known = steps < begin[:, None]
        if sequence.segments is not None:
            learnt = sequence.labels is not None and bool((sequence.labels != IGNORE).any())
            if learnt and bool((sequence.segments != sequence.segments[:, :1]).any()):
                raise ValueError("an encoder-decoder reads one sample a row; say pack=false")
            known &= sequence.segments == sequence.segments[:, -1:]
        # Nothing is padded in prompts of one length, and a mask would have to be computed to tell.
        known = None if sequence.labels is None and sequence.segments is None else known[:, :most].long()
        memory = self.model.get_encoder()(inputs_embeds=x[:, :most], attention_mask=known).last_hidden_state
        # The decoder is given the start token, then the reply; its answers begin at the last token of the context.
        opening = self.embed(torch.zeros(b, 1, dtype=torch.long, device=x.device))
        offset = steps - begin[:, None] + 1
        reply = (begin[:, None] + steps[: t - least]).clamp(max=t - 1)
        given = torch.cat([opening, x.gather(1, reply[..., None].expand(-1, -1, x.shape[-1]))], dim=1)
        out, after = self._decode(given, memory, known, state)
        spread = out.gather(1, offset.clamp(0, out.shape[1] - 1)[..., None].expand(-1, -1, out.shape[-1]))
        return spread * (offset >= 0)[..., None], after

    def _decode(self, x: Tensor, memory: Tensor, known: Tensor | None, state: State) -> tuple[Tensor, State]:
        from transformers import DynamicCache, EncoderDecoderCache

        answer = self.model.get_decoder()(
            inputs_embeds=x,
            encoder_hidden_states=memory,
            encoder_attention_mask=known,
            past_key_values=EncoderDecoderCache(fill_cache(state), DynamicCache()),
            use_cache=True,
        )
        layers = read_cache(answer.past_key_values.self_attention_cache)
        kept = {} if known is None else {"known": known}
        return answer.last_hidden_state, State(layers, {"context": memory, **kept})


def make_config(name: str, **sizes: Any) -> Any:
    """The configuration of an architecture.

    Raises:
        ValueError: there is no such architecture.
    """
    from transformers import CONFIG_MAPPING

    if name not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no architecture {name!r}; opt, persimmon and t5 are some that it has")
    return CONFIG_MAPPING[name](**sizes)


def fill_cache(state: State) -> Any:
    """The cache of transformers with what a state holds."""
    from transformers import DynamicCache

    if state.layers[0]["key"].shape[2] == 0:
        return DynamicCache()
    return DynamicCache([(layer["key"], layer["value"]) for layer in state.layers])


def read_cache(cache: Any) -> tuple[dict[str, Tensor], ...]:
    return tuple({"key": layer.keys, "value": layer.values} for layer in cache.layers)


def _first_target(sequence: Sequence) -> Int[Tensor, " b"]:
    """Where the reply of every row begins, at 1 or later; the length of the row where there is none."""
    b, t = sequence.ids.shape
    if sequence.labels is None:
        return torch.full((b,), t, device=sequence.ids.device)
    target = sequence.labels != IGNORE
    return torch.where(target.any(1), target.int().argmax(1), t).clamp(min=1)
