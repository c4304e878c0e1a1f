"""Opens what the service needs while it runs, and closes it at the end."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State

from app.settings import Settings

# Opens a resource with what `request.state` has so far: the settings, and the resources before it.
Opener = Callable[[State], AbstractAsyncContextManager[Any]]


def lifespan_of(
    resources: Mapping[str, Opener],
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return the lifespan that opens these resources, in their order, and closes them in reverse."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        settings = Settings.read()
        logging.getLogger().setLevel(settings.log_level)
        state: dict[str, Any] = {"settings": settings}
        async with AsyncExitStack() as opened:
            enter = opened.enter_async_context
            for name, open_resource in resources.items():
                state[name] = await enter(open_resource(State(state)))
            yield state

    return lifespan
