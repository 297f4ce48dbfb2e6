"""Arguments of a chat completion, as OpenAI's API names them."""

from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema, model_validator

from mmrnn.data.readers.dialogue import check_characters
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.server.limits import MAX_MESSAGES, MAX_STOP_CHARS, MAX_STOPS, MAX_TOP_LOGPROBS, Limits
from mmrnn.inference.server.openapi import MESSAGE

WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Arguments of OpenAI's that would change the reply, and the values with which they do not; others are refused."""

IGNORED = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"),
}
"""Arguments of OpenAI's that do not change the reply."""

Number = Annotated[float | None, Field(allow_inf_nan=False)]


def documented(**bounds: float | int) -> Any:
    """Return the bounds of an argument for the schema; `Sampler` checks them."""
    return Field(json_schema_extra=bounds)


Messages = Annotated[
    list[dict[str, Any]],
    Field(min_length=1, max_length=MAX_MESSAGES),
    FailFast(),
    WithJsonSchema({"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": MESSAGE}),
]

STOP = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_STOP_CHARS},
        {"type": "array", "maxItems": MAX_STOPS, "items": {"type": "string", "maxLength": MAX_STOP_CHARS}},
        {"type": "null"},
    ]
}


def add_other_arguments(schema: dict[str, Any]) -> None:
    """Add the arguments without effect to the schema of a request: there are no others."""
    schema["additionalProperties"] = False
    schema["properties"] |= {name: {"enum": [*values, None]} for name, values in WITHOUT_EFFECT.items()}
    schema["properties"] |= {name: {} for name in sorted(IGNORED)}


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class ReplyOptions(NamedTuple):
    """Options of the engine.

    Attributes:
        max_new_tokens: of the reply.
        sampler: choice of the next token.
        stop: strings that end the reply.
        log_probs: most likely tokens to give with each; None: no log-probabilities.
    """

    max_new_tokens: int
    sampler: Sampler
    stop: tuple[str, ...]
    log_probs: int | None


class ChatCompletionRequest(BaseModel):
    """Arguments of a chat completion. `top_k`, `min_p` and `repetition_penalty` are additions, named as in vLLM."""

    model_config = ConfigDict(strict=True, json_schema_extra=add_other_arguments)

    model: str
    messages: Messages
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[Number, documented(minimum=0)] = None
    top_p: Annotated[Number, documented(minimum=0, maximum=1)] = None
    top_k: Annotated[int | None, documented(minimum=0)] = None
    min_p: Annotated[Number, documented(minimum=0, maximum=1)] = None
    repetition_penalty: Annotated[Number, documented(exclusiveMinimum=0)] = None
    seed: Annotated[int | None, documented(minimum=0, maximum=2**63 - 1)] = None
    stop: Annotated[str | list[Any] | None, WithJsonSchema(STOP)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_TOP_LOGPROBS)] = None

    @model_validator(mode="before")
    @classmethod
    def check_names(cls, given: Any) -> Any:
        """Refuse arguments that would be ignored silently.

        Raises:
            ValueError: an argument is unknown, or its value is not supported.
        """
        if not isinstance(given, dict):
            return given
        for name, value in given.items():
            if name in cls.model_fields or name in IGNORED or value is None:
                continue
            if name not in WITHOUT_EFFECT:
                raise ValueError(f"there is no argument {name!r:.60}")
            if value not in WITHOUT_EFFECT[name]:
                raise ValueError(f"{name} is not supported; leave it out")
        return {name: given[name] for name in cls.model_fields if name in given}

    def options(self, defaults: Sampler, limits: Limits) -> ReplyOptions:
        """Return the options of the engine.

        Args:
            defaults: choice of the next token where the request says nothing.
            limits: of the server.

        Raises:
            ValueError: a value is outside its range, or beyond a limit.
        """
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        given = {name: value for name in names if (value := vars(self)[name]) is not None}
        length = self.max_completion_tokens or self.max_tokens or limits.max_new_tokens
        if length > limits.max_new_tokens:
            raise ValueError(f"a reply of {length} tokens is asked for; this server allows {limits.max_new_tokens}")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stop) > MAX_STOPS or not all(isinstance(text, str) for text in stop):
            raise ValueError(f"stop must be a string, or at most {MAX_STOPS}")
        for text in stop:
            if len(text) > MAX_STOP_CHARS:
                raise ValueError(f"a stop string has {len(text)} characters; {MAX_STOP_CHARS} are allowed")
            check_characters(text, "stop")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return ReplyOptions(
            length, replace(defaults, **given), stop, (self.top_logprobs or 0) if self.logprobs else None
        )
