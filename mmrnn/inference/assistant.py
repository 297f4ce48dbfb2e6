"""Assistant: a model with its tokenizer and prompt, for asking questions."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float

from mmrnn.data.image import ImageLike
from mmrnn.inference.beam_search import BeamSearch
from mmrnn.inference.conversation import Conversation, whole_reply
from mmrnn.inference.dialogue import without_reply
from mmrnn.inference.embedding import embed_images, embed_texts
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.fingerprint import state_facts
from mmrnn.inference.frame_stream import FrameStream
from mmrnn.inference.generate import generate, stream
from mmrnn.inference.reader import DialogueReader
from mmrnn.inference.reply import Reply, Token
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.score import Score, score
from mmrnn.model.vlm import VLM
from mmrnn.prompts import StopCriteria
from mmrnn.types import Prompt, Sample, State, Tokenizer


class Assistant:
    """A model with its tokenizer and prompt.

    Args:
        model: on any device.
        tokenizer: of the text.
        prompt: format of the dialogues.
        features: cached encoder tokens (`n e`) by `ImageSource.key`; with them no image is opened.
        cache_bytes: of the visual tokens that are kept for further questions about an image, and as much again of the
            states behind images; 0: none are kept.
    """

    def __init__(
        self,
        model: VLM,
        tokenizer: Tokenizer,
        prompt: Prompt,
        *,
        features: Mapping[str, torch.Tensor] | None = None,
        cache_bytes: int = 2**28,
    ) -> None:
        self.model, self.tokenizer, self.prompt, self.features = model, tokenizer, prompt, features
        self.reader = DialogueReader(model, tokenizer, prompt, features, cache_bytes)
        self.stop = self.reader.stop

    def chat(self, *, system: str | None = None, reread: bool = False, max_marks: int = 8) -> Conversation:
        """Return a new conversation; the arguments are those of `Conversation`."""
        return Conversation(self.reader, system=system, reread=reread, max_marks=max_marks)

    def resume(self, path: str | Path) -> Conversation:
        """Return the conversation that `Conversation.save` wrote to a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or was made with another backbone, weights, tokenizer or scan.
        """
        return Conversation.load(self.reader, path)

    def watch(
        self,
        frames: Iterable[ImageLike] = (),
        *,
        system: str | None = None,
        resume: str | Path | None = None,
    ) -> FrameStream:
        """Return a stream, which reads a video frame by frame and answers questions about the frames so far.

        Args:
            frames: images in their order, read as the stream is iterated; `FrameStream.read` reads others.
            system: message in place of the prompt's own; None: that of the prompt.
            resume: file of `FrameStream.save` to continue from; None: a new stream.

        Raises:
            FileNotFoundError: there is no file `resume`.
            ValueError: model or prompt cannot read frames before the question, or the file is damaged or foreign.
        """
        made = FrameStream(self.reader, frames, system=system)
        if resume is not None:
            made.resume(resume)
        return made

    def ask(
        self,
        image: ImageLike | Sequence[ImageLike] | None,
        question: str,
        *,
        observations: Mapping[str, tuple[torch.Tensor, ...]] | None = None,
        max_new_tokens: int = 64,
        sampler: Sampler | None = None,
        beams: BeamSearch | None = None,
        stop: str | Sequence[str] = (),
    ) -> str:
        """Return the reply to a question.

        Args:
            image: a file, the bytes of one, an open image or an array; a video, if the question has the
                tag `<video>`; a list of them; None: no image.
            question: without an image tag, it comes after the images.
            observations: inputs of other modalities by name (`objects features` each), for every `<state>` of the
                question one of `state`.
            max_new_tokens: of the reply; 0: it is empty.
            sampler: choice of the next token; None: the most likely one.
            beams: search for the most likely reply, in place of `sampler`; None: token by token.
            stop: strings that end the reply, beside those of the prompt.

        Raises:
            ImageError: the image cannot be opened.
            ValueError: tags and images or observations differ in number, the model has no such modality, or beams are
                to be sampled.
        """
        options = {"max_new_tokens": max_new_tokens, "sampler": sampler, "stop": stop}
        if beams is not None:
            sample = self.reader.question(question, _images(image), observations)
            return self.answer([sample], beams=beams, **options)[0]
        return whole_reply(self.stream(image, question, observations=observations, **options))

    def stream(
        self,
        image: ImageLike | Sequence[ImageLike] | None,
        question: str,
        *,
        observations: Mapping[str, tuple[torch.Tensor, ...]] | None = None,
        max_new_tokens: int = 64,
        sampler: Sampler | None = None,
        stop: str | Sequence[str] = (),
    ) -> Generator[str, None, str]:
        """Yield the reply to a question after every token, each time all of it so far; arguments as of `ask`.

        Each text is the beginning of the next one: an incomplete character and the beginning of a stop string wait
        for the tokens that decide on them. The last one is the reply that `ask` returns, unless a tokenizer with byte
        fallback takes a character back (bytes that end in no character are all U+FFFD then).
        """
        options = {"max_new_tokens": max_new_tokens, "sampler": sampler, "stop": stop}
        return self.chat(max_marks=0).say(question, *_images(image), observations=observations, **options)

    def answer(
        self,
        samples: Sequence[Sample],
        *,
        max_new_tokens: int = 64,
        sampler: Sampler | Sequence[Sampler] | None = None,
        beams: BeamSearch | None = None,
        stop: str | Sequence[str] = (),
    ) -> list[str]:
        """Return the replies to the last question of every sample; a reply of the sample itself is removed.

        Args:
            samples: answered as one batch; none: there are no replies.
            max_new_tokens: of a reply; 0: it is empty.
            sampler: choice of the next token, of all replies or of each; None: the most likely one.
            beams: search for the most likely replies, in place of `sampler`; None: token by token.
            stop: strings that end a reply, beside those of the prompt.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: a sample asks nothing, tags and images or observations differ in number, samplers and samples
                do, or beams are to be sampled.
        """
        options = {"max_new_tokens": max_new_tokens, "sampler": sampler, "beams": beams, "stop": stop}
        return [reply.text for reply in self.generate(samples, **options)]

    def generate(
        self,
        samples: Sequence[Sample],
        *,
        max_new_tokens: int = 64,
        sampler: Sampler | Sequence[Sampler] | None = None,
        beams: BeamSearch | None = None,
        stop: str | Sequence[str] = (),
        log_probs: int | None = None,
    ) -> list[Reply]:
        """Return the replies of `answer` with their tokens, and with what ended each.

        Args:
            samples: as of `answer`, as are those not named here.
            log_probs: number of most likely tokens to give with each token of a reply, with log-probabilities; 0: that
                of the token alone; None: no log-probabilities.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: as of `answer`, or beams are to have log-probabilities.
        """
        if not samples:
            return []
        criteria = self.reader.stop_criteria(stop)
        batch = self.reader.collator()([without_reply(sample) for sample in samples]).to(self.reader.device)
        options = {"max_new_tokens": max_new_tokens, "finished": criteria.finished}
        options |= {"sampler": sampler, "log_probs": log_probs}
        replies: list[list[Token]] = [[] for _ in samples]
        with eval_mode(self.model):
            if beams is not None:
                replies = [[*map(Token, ids)] for ids in generate(self.model, batch, beams=beams, **options)]
            else:
                for tokens in stream(self.model, batch, **options):
                    for row, token in tokens.items():
                        replies[row].append(token)
        return [self._reply(tokens, criteria) for tokens in replies]

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
            return score(self.model, self.reader.collator(), without_reply(sample), candidates, batch_size=batch_size)

    def embed(
        self,
        *,
        image: ImageLike | Sequence[ImageLike] | None = None,
        text: str | Sequence[str] | None = None,
        batch_size: int = 32,
    ) -> Float[torch.Tensor, "n q w"]:
        """Return vectors of unit length of images or of texts, in one space; `similarity` compares them.

        An item has `q` vectors: of BLIP-2 an image has as many as its Q-Former has queries, and a text one.

        Args:
            image: as of `ask`, or a list of images; either this or `text`.
            text: a caption, or a list of them.
            batch_size: items that are embedded at once; the vectors do not depend on it.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: the model was not trained with a contrastive objective, both or neither are given, there is
                nothing in the list, or a text is empty or too long.
        """
        if (image is None) == (text is None):
            raise ValueError("embed takes either image= or text=")
        if text is None:
            return embed_images(self.reader, _images(image), batch_size=batch_size)
        return embed_texts(self.reader, [text] if isinstance(text, str) else text, batch_size=batch_size)

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
        state = State.load(path, str(self.reader.device), state_facts(self.model, self.tokenizer))
        state.check(self.model.state_origin, backbone.state(0))
        return state

    def _reply(self, tokens: Sequence[Token], criteria: StopCriteria) -> Reply:
        ids = [token.id for token in tokens]
        text = criteria.clean(self.tokenizer.decode(ids))
        return Reply(text, tuple(tokens), "stop" if criteria.finished(ids) else "length")


def _images(image: ImageLike | Sequence[ImageLike] | None) -> Sequence[ImageLike]:
    return image if isinstance(image, list | tuple) else [] if image is None else [image]
