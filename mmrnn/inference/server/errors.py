"""Errors in OpenAI's schema."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class APIError(HTTPException):
    """An error that is sent to the client.

    Args:
        status: HTTP status.
        message: one sentence.
        code: short name for programs.
        param: argument of the request that is at fault.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers=dict(headers) if headers else None)
        self.message, self.code, self.param = message, code, param


def error_object(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error as an object of OpenAI's schema."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: StarletteHTTPException) -> Response:
    """Return the response to an error. It is written in ASCII, because a message may quote half a character."""
    code, param = (error.code, error.param) if isinstance(error, APIError) else (None, None)
    found = error_object(error.status_code, str(error.detail), code, param)
    return Response(json.dumps(found), error.status_code, error.headers, "application/json")


def message_of(error: APIError | ValueError) -> str:
    """Return what a user is told of an error; of an invalid `ChatCompletionRequest`, its first fault."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{fault['loc'][0]}: {fault['msg']}"
    return error.message if isinstance(error, APIError) else str(error)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an application in OpenAI's schema."""

    @app.exception_handler(StarletteHTTPException)
    async def known(_: Request, error: StarletteHTTPException) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return error_response(_first_fault(error))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_response(APIError(500, f"the server has failed ({type(error).__name__}); its log says more"))


def _first_fault(error: RequestValidationError) -> APIError:
    """First fault of a body, without the input itself, which may be large."""
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return APIError(400, f"the body is not JSON: {fault['ctx']['error']} at position {fault['loc'][1]}")
    param = ".".join(map(str, fault["loc"][1:])) or None
    text = fault["msg"].removeprefix("Value error, ")
    if not param and text.startswith("Input should be"):
        text = "the body must be a JSON object, sent as application/json"
    elif not param and fault["type"] == "missing":
        text = "the body is empty; send a JSON object"
    return APIError(400, f"{param}: {text}" if param else text, param=param)
