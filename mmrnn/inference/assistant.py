"""Assistant: a model with its tokenizer and prompt, for asking questions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmrnn.data.collate import Collator
from mmrnn.data.image import ImageError, ImageLike, image_source
from mmrnn.data.video import VIDEO, expand_videos, frames
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.fingerprint import state_facts
from mmrnn.inference.generate import generate, stream
from mmrnn.inference.sampler import TokenSampler
from mmrnn.inference.score import Score, score
from mmrnn.inference.text_stream import TextStream
from mmrnn.model.vlm import VLM
from mmrnn.prompts import StopCriteria
from mmrnn.types import Batch, Prompt, State, Tokenizer
from mmrnn.types.sample import TAG, Sample, Turn


class Assistant:
    """A model with its tokenizer and prompt.

    Args:
        model: on any device.
        tokenizer: of the text.
        prompt: format of the dialogues.
        features: cached encoder tokens (`n e`) by `ImageSource.key`; with them no image is opened.
    """

    def __init__(
        self,
        model: VLM,
        tokenizer: Tokenizer,
        prompt: Prompt,
        *,
        features: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.stop = StopCriteria(tokenizer, prompt.stops)
        self.features = features

    def ask(
        self,
        image: ImageLike | None,
        question: str,
        *,
        observations: Mapping[str, tuple[torch.Tensor, ...]] | None = None,
        max_new_tokens: int = 64,
    ) -> str:
        """Return the reply to a question.

        Args:
            image: a file, the bytes of one, an open image or an array; a video, if the question has the
                tag `<video>`; None: no image.
            question: without an image tag, it comes after the image.
            observations: inputs of other modalities by name (`objects features` each), for every `<state>` of the
                question one of `state`.
            max_new_tokens: of the reply; 0: it is empty.

        Raises:
            ImageError: the image cannot be opened.
            ValueError: tags and images or observations differ in number, or the model has no such modality.
        """
        sample = replace(_sample(image, question), observations=observations or {})
        return self.answer([sample], max_new_tokens=max_new_tokens)[0]

    def stream(
        self,
        image: ImageLike | None,
        question: str,
        *,
        observations: Mapping[str, tuple[torch.Tensor, ...]] | None = None,
        max_new_tokens: int = 64,
    ) -> Iterator[str]:
        """Yield the reply to a question after every token, each time all of it so far; arguments as of `ask`.

        Each text is the beginning of the next one: an incomplete character and the beginning of a stop string wait
        for the tokens that decide on them. The last one is the reply that `ask` returns, unless a tokenizer with byte
        fallback takes a character back (bytes that end in no character are all U+FFFD then).
        """
        batch = self._batch([replace(_sample(image, question), observations=observations or {})])
        text = TextStream(self.tokenizer, self.stop)
        with eval_mode(self.model):
            for tokens in stream(self.model, batch, max_new_tokens=max_new_tokens, finished=self.stop.finished):
                yield text.push(tokens[0])
        shown = text.text
        if text.finish() != shown:
            yield text.text

    def answer(
        self,
        samples: Sequence[Sample],
        *,
        max_new_tokens: int = 64,
        until: Sequence[str] = (),
        sampler: TokenSampler | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Return the replies to the last question of every sample; a reply of the sample itself is removed.

        Args:
            samples: answered as one batch; none: there are no replies.
            max_new_tokens: of a reply; 0: it is empty.
            until: further strings that end a reply, beside those of the prompt.
            sampler: chooses the next token; None: the most likely one.
            seeds: of the random numbers of each reply; None: drawn from torch's default generator.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: a sample asks nothing, or tags and images or observations differ in number.
        """
        if not samples:
            return []
        batch = self._batch([_without_reply(sample) for sample in samples])
        stop = StopCriteria(self.tokenizer, (*self.prompt.stops, *until)) if until else self.stop
        with eval_mode(self.model):
            replies = generate(
                self.model,
                batch,
                max_new_tokens=max_new_tokens,
                finished=stop.finished,
                sampler=sampler,
                seeds=seeds,
            )
        return [stop.clean(self.tokenizer.decode(ids)) for ids in replies]

    def score(self, sample: Sample, candidates: Sequence[str], *, batch_size: int = 16) -> list[Score]:
        """Return the log-probabilities of candidate replies to the last question of a sample, in their order.

        Prompt and candidate are written and tokenised as training writes the whole dialogue. The prompt is read once.

        Args:
            sample: a reply of its own is removed.
            candidates: at least one; none is empty.
            batch_size: number of candidates that are read at once.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: the sample asks nothing, a candidate is empty, or model or prompt cannot score replies.
        """
        with eval_mode(self.model):
            return score(self.model, self._collator(), _without_reply(sample), candidates, batch_size=batch_size)

    def save_state(self, state: State, path: str | Path) -> None:
        """Write a state of the model to a safetensors file, with fingerprints of weights, tokenizer and scan.

        Raises:
            ValueError: the state belongs to another backbone.
        """
        backbone = self.model.backbone
        state.check(self.model.state_origin, backbone.state(0))
        state.save(path, state_facts(self.model, self.tokenizer))

    def load_state(self, path: str | Path) -> State:
        """Read a state that `save_state` wrote, onto the device of the model.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or was made with another backbone, weights, tokenizer or scan.
        """
        backbone = self.model.backbone
        state = State.load(path, str(self._device), state_facts(self.model, self.tokenizer))
        state.check(self.model.state_origin, backbone.state(0))
        return state

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _collator(self) -> Collator:
        """Collator of one call alone, because it records what it drops."""
        modalities = dict(self.model.modalities)
        return Collator(self.tokenizer, self.prompt, modalities, self.features, for_generation=True)

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        collate = self._collator()
        batch = collate(samples)
        if collate.dropped:
            raise ImageError(collate.dropped[0].detail, collate.dropped[0].reason)
        return batch.to(self._device)


def _sample(image: ImageLike | None, question: str) -> Sample:
    counts = {tag: question.count(tag) for tag in (TAG, VIDEO)}
    if sum(counts.values()) > (image is not None):
        tags = " and ".join(f"{count} {tag}" for tag, count in counts.items() if count)
        raise ValueError(f"the question has {tags} for {int(image is not None)} images; each tag needs one image")
    if image is None:
        return Sample((Turn("user", question), Turn("assistant", "")))
    if VIDEO in question:
        if not isinstance(image, str | Path):
            raise ValueError(f"the question has the tag {VIDEO}; give the path of a video (got {type(image).__name__})")
        return Sample(*expand_videos((Turn("user", question), Turn("assistant", "")), (), [frames(image)]))
    text = question if TAG in question else f"{TAG}\n{question}"
    return Sample((Turn("user", text), Turn("assistant", "")), (image_source(image),))


def _without_reply(sample: Sample) -> Sample:
    turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
    if not turns or turns[-1].role != "user":
        which = f"sample {sample.id}" if sample.id else "a sample"
        raise ValueError(f"{which} ends with no question of the user, so there is nothing to answer")
    return replace(sample, turns=(*turns, Turn("assistant", "")))
