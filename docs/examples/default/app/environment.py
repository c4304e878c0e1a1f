"""Reports environment variables that are missing or wrong in one sentence."""

import sys

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def what_to_set(error: ValidationError) -> str:
    """Say which environment variables are missing or wrong, without their values."""
    problems = [
        ": ".join([*(str(name).upper() for name in problem["loc"]), problem["msg"]])
        for problem in error.errors(include_input=False, include_context=False)
    ]
    return "The environment is not valid. " + "; ".join(problems)


async def run_lifespan(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run the lifespan, where wrong settings fail the start with one sentence and no traceback."""
    reported = False

    async def send_in_one_line(message: Message) -> None:
        nonlocal reported
        # Starlette reports a failed start while it handles the exception of it.
        error = sys.exception()
        if isinstance(error, ValidationError) and error.title.endswith("Settings"):
            message = {**message, "message": what_to_set(error)}
            reported = True
        await send(message)

    try:
        await app(scope, receive, send_in_one_line)
    except ValidationError:
        if not reported:
            raise
