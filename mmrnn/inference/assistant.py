"""Assistant: a model with its tokenizer and prompt, for asking questions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from mmrnn.data.collate import Collator
from mmrnn.data.image import ImageError, ImageLike, image_source
from mmrnn.data.video import VIDEO, expand_videos, frames
from mmrnn.inference.generate import generate, stream
from mmrnn.model.vlm import VLM
from mmrnn.prompts import StopCriteria
from mmrnn.types import Batch, Prompt, Tokenizer
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
        self.collate = Collator(tokenizer, prompt, dict(model.modalities), features, for_generation=True)

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
            max_new_tokens: of the reply.

        Raises:
            ImageError: the image cannot be opened.
            ValueError: tags and observations differ in number, or the model has no such modality.
        """
        return list(self.stream(image, question, observations=observations, max_new_tokens=max_new_tokens))[-1]

    def stream(
        self,
        image: ImageLike | None,
        question: str,
        *,
        observations: Mapping[str, tuple[torch.Tensor, ...]] | None = None,
        max_new_tokens: int = 64,
    ) -> Iterator[str]:
        """Yield the reply to a question after every token, each time all of it so far; arguments as of `ask`."""
        batch = self._batch([replace(_sample(image, question), observations=observations or {})])
        ids: list[int] = []
        with eval_mode(self.model):
            for tokens in stream(self.model, batch, max_new_tokens=max_new_tokens, finished=self.stop.finished):
                ids.append(tokens[0])
                yield self.stop.clean(self.tokenizer.decode(ids))

    def answer(
        self,
        samples: Sequence[Sample],
        *,
        max_new_tokens: int = 64,
        sampler: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> list[str]:
        """Return the replies to the last question of every sample; a reply of the sample itself is removed.

        Args:
            samples: answered as one batch.
            max_new_tokens: of a reply.
            sampler: draws ids (`b`) from logits (`b vocab`); None: the most likely one.

        Raises:
            ImageError: an image cannot be opened.
        """
        batch = self._batch([_without_reply(sample) for sample in samples])
        with eval_mode(self.model):
            replies = generate(
                self.model, batch, max_new_tokens=max_new_tokens, finished=self.stop.finished, sampler=sampler
            )
        return [self.stop.clean(self.tokenizer.decode(ids)) for ids in replies]

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        self.collate.dropped.clear()
        batch = self.collate(samples)
        if self.collate.dropped:
            raise ImageError(self.collate.dropped[0][1])
        return batch.to(next(self.model.parameters()).device)


def _sample(image: ImageLike | None, question: str) -> Sample:
    if image is None:
        return Sample((Turn("user", question), Turn("assistant", "")))
    if VIDEO in question and isinstance(image, str | Path):
        return Sample(*expand_videos((Turn("user", question), Turn("assistant", "")), (), [frames(image)]))
    text = question if TAG in question else f"{TAG}\n{question}"
    return Sample((Turn("user", text), Turn("assistant", "")), (image_source(image),))


def _without_reply(sample: Sample) -> Sample:
    turns = sample.turns[:-1] if sample.turns[-1].role == "assistant" else sample.turns
    return replace(sample, turns=(*turns, Turn("assistant", "")))


@contextmanager
def eval_mode(model: VLM) -> Iterator[None]:
    """Context with the model in evaluation mode; the mode of every module is restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
