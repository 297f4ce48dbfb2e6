"""Reading of dialogues by a model: visual tokens and states behind images are kept, only new positions are read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from mmrnn.data.collate import IMAGE, Collator
from mmrnn.data.image import ImageLike
from mmrnn.inference.byte_cache import ByteCache
from mmrnn.inference.dialogue import DialogueInput, DialogueRow, Exchange, dialogue_row, question_sample
from mmrnn.inference.generate import prefill
from mmrnn.inference.text_stream import common_length
from mmrnn.model.vlm import VLM
from mmrnn.prompts import StopCriteria
from mmrnn.types import SLOT, TAG, Batch, ImageSpan, Prompt, Sample, State, Tokenizer
from mmrnn.types import Sequence as Tokens


class DialogueReader:
    """A model with its tokenizer and prompt, and two caches that all conversations share.

    Both are forgotten when a parameter or buffer is changed in place, as training and `load_state_dict` do.

    Args:
        model: on any device.
        tokenizer: of the text.
        prompt: format of the dialogues.
        features: cached encoder tokens by `ImageSource.key`; None: images are opened.
        cache_bytes: of the visual tokens that are kept, and as much again of the states behind images.

    Attributes:
        visual: visual tokens (`v d`) by content of the image.
        states: states behind the images of a first question, by the content of what was read.
        weights: number of changes in place of each parameter and buffer, when the reader last looked; another list
            where one has changed since.
    """

    def __init__(
        self,
        model: VLM,
        tokenizer: Tokenizer,
        prompt: Prompt,
        features: Mapping[str, Tensor] | None,
        cache_bytes: int,
    ) -> None:
        self.model, self.tokenizer, self.prompt, self.features = model, tokenizer, prompt, features
        self.stop = StopCriteria(tokenizer, prompt.stops)
        self.visual: ByteCache[Tensor] = ByteCache(cache_bytes)
        self.states: ByteCache[State] = ByteCache(cache_bytes)
        self.weights = self._count_changes()

    @property
    def causal(self) -> bool:
        """True where a state can be continued by a prompt: no encoder and no mask reads the whole of it at once."""
        return self.model.backbone.causal and (self.model.mask is None or self.model.mask.causal)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def stop_criteria(self, stop: str | Sequence[str] = ()) -> StopCriteria:
        """Return what ends a reply: the end ids of the tokenizer, the stop strings of the prompt, and those of `stop`.

        Raises:
            ValueError: `stop` is neither a string nor a sequence of strings.
        """
        more = (stop,) if isinstance(stop, str) else stop
        if not isinstance(more, list | tuple) or not all(isinstance(one, str) for one in more):
            raise ValueError(f"stop ({stop!r}) must be a string or several")
        return StopCriteria(self.tokenizer, (*self.prompt.stops, *more)) if more else self.stop

    def collator(self) -> Collator:
        """Return a collator of prompts."""
        return Collator(self.tokenizer, self.prompt, dict(self.model.modalities), self.features, for_generation=True)

    def question(
        self, text: str, images: Sequence[ImageLike], observations: Mapping[str, tuple[Tensor, ...]] | None = None
    ) -> Sample:
        """Return `question_sample`, with videos as the encoder of the model reads them."""
        vision = self.model.modalities
        temporal_patch = vision[IMAGE].image.temporal_patch if IMAGE in vision else 1
        return question_sample(text, images, observations, temporal_patch=temporal_patch)

    def exchange(self, sample: Sample) -> Exchange:
        """Return a sample of one question with its images opened and prepared.

        Raises:
            ImageError: as of `sample_row`.
            ValueError: as of `sample_row`.
        """
        return Exchange(sample.turns[0].text, tuple(self.sample_row(sample).inputs))

    def sample_row(self, sample: Sample) -> DialogueRow:
        """Return a sample as training writes it, with its images opened and prepared. Any thread may call it.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: tags and images or observations differ in number, the model has no such modality, or the prompt
                cannot format the turns.
        """
        if (weights := self._count_changes()) != self.weights:
            self.forget()
            self.weights = weights
        prepared = self.collator().prepare(sample)
        places = zip(prepared.row.image_spans, prepared.inputs, strict=True)
        inputs = [DialogueInput.of(name, tensor, span.layout) for span, (name, tensor) in places]
        return DialogueRow(prepared.row.ids, prepared.row.image_spans, inputs)

    def row(self, exchanges: tuple[Exchange, ...], *, system: str | None = None, rewrite: bool = False) -> DialogueRow:
        """Return the row of a dialogue; see `dialogue_row`."""
        return dialogue_row(exchanges, self.tokenizer, self.prompt, system=system, rewrite=rewrite)

    def read(
        self, row: DialogueRow, start: int, stop: int, state: State | None, *, keep: bool = True
    ) -> tuple[Tensor, State]:
        """Read the positions `start:stop` of a row behind `state`; without `keep` no visual tokens are cached.

        Returns:
            Hidden state of the last position (`1 d`), and the state after it.

        Raises:
            ValueError: the frames of a stream are among the positions.
        """
        spans: list[ImageSpan] = []
        visual: dict[str, list[Tensor]] = {}
        for span, item in zip(row.spans, row.inputs, strict=True):
            if span.lies_within(start, stop):
                spans.append(replace(span, start=span.start - start))
                visual.setdefault(item.modality, []).append(self.encode(item, keep=keep))
        ids = torch.tensor([row.ids[start:stop]], device=self.device)
        batch = Batch(Tokens(ids, tuple(spans)), visual={name: stack(tokens) for name, tokens in visual.items()})
        return prefill(self.model, batch, state)

    def encode(self, item: DialogueInput, *, keep: bool = True) -> Tensor:
        """Return the visual tokens of an input (`v d`), from the cache where it has them.

        Raises:
            ValueError: the input is a stream, whose frames are not kept.
        """
        if item.is_stream:
            raise ValueError(
                "the frames of a stream are not kept, and the state behind them is no longer there; ask the stream anew"
            )
        known = self.visual.get(item.key)
        if known is not None:
            return known.to(self.device)
        tensor = item.tensor[None].to(self.device)
        cached = item.modality == IMAGE and self.features is not None
        batch = Batch(
            Tokens(torch.zeros(1, 0, dtype=torch.long, device=self.device)),
            images={} if cached else {item.modality: tensor},
            features={item.modality: tensor} if cached else {},
        )
        [tokens] = self.model.encode_images(batch, item.modality, self.model.modalities[item.modality])
        if keep:
            self.visual.put(item.key, tokens, tokens.nbytes)
        return tokens

    def read_images(self, row: DialogueRow, other: DialogueRow) -> tuple[int, State | None]:
        """Read a first question up to its last image, or take the state behind it from the cache.

        Args:
            row: of the question.
            other: of another question about the same images.

        Returns:
            The number of positions that were read, and the state after them; 0 and None where the two rows differ
            before their last image.
        """
        stop = max((self.behind(span) for span in row.spans), default=0)
        if not 0 < stop < len(row.ids) or common_length(row.ids, other.ids) < stop:
            return 0, None
        key = row.digest(stop)
        state = self.states.get(key)
        if state is None:
            _, state = self.read(row, 0, stop, None)
            self.states.put(key, state, state.nbytes)
        return stop, state

    def behind(self, span: ImageSpan) -> int:
        """Return the position after an image, or after the tag of one that fills no slots."""
        tag = len(self.tokenizer.encode(TAG)) if span.layout.cross_attention else 0
        return span.stop + tag

    def forget(self) -> None:
        """Empty both caches."""
        self.visual.clear()
        self.states.clear()

    def _count_changes(self) -> list[int]:
        # Inference tensors do not count theirs. The codes of quantised layers are buffers.
        tensors = chain(self.model.parameters(), self.model.buffers())
        return [0 if each.is_inference() else each._version for each in tensors]


def cut_between_images(row: DialogueRow, stop: int) -> int:
    """Return the last position up to `stop` that is neither inside an image nor between two that adjoin.

    A scan needs all tokens of an image, and a visual expert the type of the token behind each.
    """
    while 0 < stop < len(row.ids) and row.ids[stop - 1] == row.ids[stop] == SLOT:
        stop -= 1
    return stop


def stack(tokens: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Return one tensor, or a tuple where images have different numbers of tokens."""
    return torch.stack(tokens) if len({each.shape for each in tokens}) == 1 else tuple(tokens)
