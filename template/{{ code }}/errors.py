"""The responses to requests that can't be served."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

logger = logging.getLogger(__name__)


class Unavailable(Exception):
    """Raised where something that a request needs does not answer; the message names it."""


async def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Respond with 422 and what is wrong, without the input.

    The input may hold a secret, or what JSON can't: NaN, or half of a surrogate pair.
    """
    problems = [{k: v for k, v in p.items() if k != "input"} for p in error.errors()]
    return JSONResponse({"detail": jsonable_encoder(problems)}, status_code=422)


async def answer_unavailable(_: Request, error: Unavailable) -> JSONResponse:
    """Respond with 503: the service itself is not broken, and clients may try again."""
    logger.warning("%s %r", error, error.__cause__)
    return JSONResponse(
        {"detail": str(error)}, status_code=503, headers={"Retry-After": "1"}
    )


Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]
HANDLERS: dict[int | type[Exception], Handler] = {
    RequestValidationError: answer_invalid,
    Unavailable: answer_unavailable,
}
