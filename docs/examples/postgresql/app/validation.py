"""Tells clients what is wrong with a request: a bounded number of problems, without the input."""

from typing import Any

from fastapi._compat import ModelField
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

# A list of all problems can take a thousand times the memory of the body.
MOST_PROBLEMS = 100
# Characters of a name in the place of a problem, because each problem repeats it.
LONGEST_NAME = 200


def validate(
    field: ModelField, value: Any, _: object = None, *, loc: tuple[int | str, ...] = ()
) -> tuple[Any, list[dict[str, Any]]]:
    """Validate as FastAPI does, but where there are too many problems, only count them."""
    try:
        return field._type_adapter.validate_python(value, from_attributes=True), []
    except ValidationError as error:
        if (count := error.error_count()) > MOST_PROBLEMS:
            message = f"{count} problems, more than the {MOST_PROBLEMS} that are listed"
            return None, [{"type": "too_many_problems", "loc": loc, "msg": message}]
        problems: list[Any] = error.errors(include_url=False)
        return None, [{**p, "loc": (*loc, *p["loc"])} for p in problems]


# A handler would be too late: FastAPI passes a list of all problems to it.
setattr(ModelField, "validate", validate)  # noqa: B010


async def answer_invalid(_: HTTPConnection, error: RequestValidationError) -> Response:
    """Respond with 422 and the problems, without the input.

    The input may hold a secret, or what JSON can't: NaN, or half of a surrogate pair.
    """
    problems = [{k: v for k, v in p.items() if k != "input"} for p in error.errors()]
    for problem in problems:
        problem["loc"] = [
            name[:LONGEST_NAME] if isinstance(name, str) else name
            for name in problem["loc"]
        ]
    return JSONResponse({"detail": jsonable_encoder(problems)}, 422)
