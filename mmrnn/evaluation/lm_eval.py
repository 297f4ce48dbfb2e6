"""Text-only model of lm-eval: `python -m mmrnn.evaluation.lm_eval run --model mmrnn --model_args pretrained=RUN ...`.

lm-eval has no entry points for models: a model is registered when its module is imported, so this module starts the
harness's own command line after that. All arguments are lm-eval's.
"""

from collections.abc import Sequence

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(f"mmrnn.evaluation.lm_eval needs lm-eval ({error}): pip install 'mmrnn[lm-eval]'") from error

from mmrnn.data.collate import PreparedSample
from mmrnn.evaluation.harness import Generation, batches, load_assistant, seeds, to_batch_size
from mmrnn.inference.dialogue import PLACEHOLDER
from mmrnn.inference.generate import generate
from mmrnn.inference.score import TokenScores, score_tokens
from mmrnn.inference.text_stream import common_length
from mmrnn.prompts import StopCriteria, TokenizedSample
from mmrnn.types import IGNORE, Batch, Turn

Pair = tuple[tuple[str, str], list[int], list[int]]
"""Context and continuation as texts, and the ids of both."""


@register_model("mmrnn")
class TextModel(TemplateLM):
    """The language model of a run, without images, as model of lm-eval.

    Context and continuation are raw text; with `--apply_chat_template` the context is a dialogue in the run's prompt.
    As lm-eval's own models do, white space at the end of a context counts as the continuation's, a text begins with the
    BOS of the tokenizer, if it has one, and an empty context is BOS, or else the end of a text. Otherwise than there, a
    token that holds the end of a context and the beginning of a continuation is scored, and nothing is truncated.

    RWKV's own adapter, with which the papers measure (LAMBADA and the other text tasks of VisualRWKV), reads a line
    break in front of every text: `prefix_id=11` with the tokenizer of RWKV World.

    Args:
        pretrained: folder of a run, or `owner/name` on the Hugging Face hub.
        batch_size: of contexts, and of continuations.
        device: of the model; None: a GPU where there is one.
        max_batch_size: not used.
        max_gen_toks: tokens of a reply where the task sets none.
        prefix_id: id that every text begins with, in place of BOS; None: BOS, if any.
        trusted: packages whose classes the run's configuration may name, joined by `+`.

    Raises:
        ValueError: a batch size that is none, or a `prefix_id` outside the vocabulary.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        max_gen_toks: int = 256,
        prefix_id: int | None = None,
        trusted: str = "",
    ) -> None:
        super().__init__()
        self.batch_size, self.max_gen_toks = to_batch_size(batch_size), max_gen_toks
        self.assistant = load_assistant(pretrained, device, trusted)
        self.text_tokenizer, self.prompt = self.assistant.tokenizer, self.assistant.prompt
        self._starts = [*self.text_tokenizer.starts] if prefix_id is None else [prefix_id]
        if prefix_id is not None and not 0 <= prefix_id < self.assistant.model.backbone.vocab:
            raise ValueError(f"prefix_id ({prefix_id}) must be an id below {self.assistant.model.backbone.vocab}")
        self._in_dialogue = False

    @property
    def eot_token_id(self) -> int:
        """Id that ends a text."""
        return self.text_tokenizer.ends[0]

    @property
    def prefix_token_id(self) -> int:
        """Id in place of an empty context."""
        return self._starts[0] if self._starts else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Return the ids of a text; without what it begins with if `add_special_tokens` is False."""
        return ([] if add_special_tokens is False else self._starts) + self.text_tokenizer.encode(string)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probabilities of whole texts, each read in one go."""
        texts = [self.tok_encode(each.args[0], add_special_tokens=False) for each in requests]
        found = self._score([[self.prefix_token_id]] * len(texts), texts, disable_tqdm)
        return [sum(score.log_probs) for score in found]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the replies to contexts, up to a string that ends them."""
        contexts = [self.tok_encode(each.args[0]) or [self.prefix_token_id] for each in requests]
        settings = [Generation.parse(each.args[1], max_new_tokens=self.max_gen_toks) for each in requests]
        replies, drawn = [""] * len(requests), seeds(len(requests))
        made = batches(settings, [len(ids) for ids in contexts], self.batch_size)
        for indices in tqdm(made, desc="batches", disable=disable_tqdm):
            given = settings[indices[0]]
            stop = self._stop(given.until)
            texts = generate(
                self.assistant.model,
                self._batch([contexts[index] for index in indices]),
                max_new_tokens=given.max_new_tokens,
                finished=stop.finished,
                sampler=given.samplers([drawn[index] for index in indices]),
            )
            for index, ids in zip(indices, texts, strict=True):
                replies[index] = stop.cut(self.text_tokenizer.decode(ids))
        return replies

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a dialogue as the run's prompt writes it."""
        self._in_dialogue = True
        turns = [Turn(each["role"], each["content"]) for each in chat_history]
        # A reply that is to be continued has no end.
        reply = "" if add_generation_prompt else turns.pop().text + PLACEHOLDER
        turns.append(Turn("assistant", reply))
        return "".join(span.text for span in self.prompt.spans(turns, 0)).partition(PLACEHOLDER)[0]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the name of the run's prompt for the results file; "": raw text."""
        return type(self.prompt).__name__ if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        """Name under which lm-eval keeps the requests that it has written."""
        return f"{type(self.text_tokenizer).__name__}-{type(self.prompt).__name__}"

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of both, cut before a token that holds the end of one and the beginning of the other."""
        whole = self.tok_encode(context + continuation)
        start = common_length(self.tok_encode(context.rstrip()), whole)
        return whole[:start] or [self.prefix_token_id], whole[start:]

    def _loglikelihood_tokens(self, requests: Sequence[Pair], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        found = self._score([each[1] for each in requests], [each[2] for each in requests], disable_tqdm)
        return [(sum(score.log_probs), all(score.greedy)) for score in found]

    def _stop(self, until: Sequence[str]) -> StopCriteria:
        if self._in_dialogue:
            return StopCriteria(self.text_tokenizer, (*self.prompt.stops, *until))
        # An end that is text itself (the empty line of RWKV World) ends a turn, and nothing in plain text.
        ends = [id for id in self.text_tokenizer.ends if not self.text_tokenizer.decode([id])]
        return StopCriteria(self.text_tokenizer, until, ends)

    def _score(self, contexts: list[list[int]], replies: list[list[int]], disable_tqdm: bool) -> list[TokenScores]:
        """Scores of the tokens of each reply; a context that several replies share is read once."""
        sharing: dict[tuple[int, ...], list[int]] = {}
        for index, ids in enumerate(contexts):
            sharing.setdefault(tuple(ids), []).append(index)
        unique = [*sharing]
        found: dict[int, TokenScores] = {}
        made = batches([0] * len(unique), [len(ids) for ids in unique], self.batch_size)
        for numbers in tqdm(made, desc="contexts", disable=disable_tqdm):
            asked = [(row, index) for row, number in enumerate(numbers) for index in sharing[unique[number]]]
            scores = score_tokens(
                self.assistant.model,
                self._batch([unique[number] for number in numbers]),
                [replies[index] for _, index in asked],
                [row for row, _ in asked],
                batch_size=self.batch_size,
            )
            found.update(zip((index for _, index in asked), scores, strict=True))
        return [found[index] for index in range(len(replies))]

    def _batch(self, contexts: Sequence[Sequence[int]]) -> Batch:
        rows = [TokenizedSample([*ids], [IGNORE] * len(ids), []) for ids in contexts]
        batch = self.assistant.reader.collator().assemble([PreparedSample(row, []) for row in rows])
        return batch.to(next(self.assistant.model.parameters()).device)


if __name__ == "__main__":
    cli_evaluate()
