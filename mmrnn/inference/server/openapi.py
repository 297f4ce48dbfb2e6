"""Replies and errors as the OpenAPI schema documents them."""

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

CAUSES = {
    400: "The request is malformed, or beyond a limit",
    401: "The key is missing or wrong",
    404: "There is no such model",
    408: "The body has not arrived in time",
    413: "The body is too large",
    429: "As many requests as allowed are at hand",
    500: "The model or the server has failed",
    503: "The server is being shut down",
}
"""Status of an error -> its cause."""

PART = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        },
        {
            "type": "object",
            "required": ["type", "image_url"],
            "properties": {
                "type": {"const": "image_url"},
                "image_url": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {"url": {"type": "string", "pattern": "^data:.*;base64,"}},
                },
            },
        },
    ]
}
"""Schema of a part of a message."""

MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": PART}]},
    },
}
"""Schema of a message."""


class Documented(BaseModel):
    """An object with these keys alone."""

    model_config = ConfigDict(extra="forbid")


class LogProb(Documented):
    """A token, and its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogProb(LogProb):
    """A token of a reply, and the most likely ones in its place."""

    top_logprobs: list[LogProb]


class LogProbs(Documented):
    """Log-probabilities of a reply."""

    content: list[TokenLogProb]


class ReplyMessage(Documented):
    """Message of the assistant."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(Documented):
    """Reply, and the cause of its end."""

    index: Literal[0]
    message: ReplyMessage
    finish_reason: Literal["stop", "length"]
    logprobs: LogProbs | None


class PromptTokensDetails(Documented):
    """Tokens of a prompt that a kept state has spared."""

    cached_tokens: int


class Usage(Documented):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatCompletion(Documented):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Model(Documented):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Documented):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Health(Documented):
    """State of the server, and the number of requests at hand."""

    status: Literal["ok", "closed"]
    requests: int


class Error(Documented):
    """An error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Documented):
    """Body of a response with an error."""

    error: Error


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors that a route may answer with."""
    return {status: {"description": CAUSES[status], "model": ErrorBody} for status in statuses}


def describe(app: FastAPI, name: str) -> None:
    """Let the schema of an application name its model, and no status 422: invalid requests are answered with 400."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        objects = schema["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            objects.pop(unused, None)
        objects["ChatCompletionRequest"]["properties"]["model"] = {"const": name}
        return schema

    app.openapi = openapi
