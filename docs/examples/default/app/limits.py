"""Limits what clients can send, and what they can see."""

import re
from typing import Annotated

import pydantic
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from starlette.middleware.body_limit import (
    MAX_BODY_SIZE_SCOPE_KEY,
    RequestBodyLimitResponder,
)
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Host = Annotated[str, pydantic.StringConstraints(pattern=r"^(\*|(\*\.)?[\w.-]+)$")]


class LimitSettings(BaseSettings):
    """The settings that `Service` applies."""

    model_config = SettingsConfigDict(
        # For development: an image has no such file.
        env_file=".env",
        extra="ignore",
        env_ignore_empty=True,
        # An error names the variable, never its value.
        hide_input_in_errors=True,
    )

    max_body_size: pydantic.ByteSize = pydantic.ByteSize(2**20)
    allowed_hosts: Annotated[list[Host], NoDecode] = ["*"]
    api_docs: bool = True

    @pydantic.field_validator("allowed_hosts", mode="before")
    @classmethod
    def split(cls, value: object) -> object:
        return re.split(r"\s*,\s*", value) if isinstance(value, str) else value


# Whatever probes the service asks by an address, and these responses don't repeat it.
PROBES = {"/health/live", "/health/ready"}

BODY_HEADERS = {b"content-length", b"transfer-encoding"}


class BodyLimit(RequestBodyLimitResponder):
    """Raises a 413 where a body that is too large is read."""

    async def send_with_limit(self, message: Message) -> None:
        # Starlette would replace the response, also that of FastAPI in JSON, with text.
        self.response_started |= message["type"] == "http.response.start"
        await self.send(message)


class RequestLimits:
    """Responds with 413 to a body that is too large, and with 400 to a host that isn't allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] != "lifespan":
            limits: LimitSettings = scope["app"].limits
            # A mounted application has the limit of the one around it.
            if may_have_body(scope) and MAX_BODY_SIZE_SCOPE_KEY not in scope:
                app = BodyLimit(app, limits.max_body_size)
            if limits.allowed_hosts != ["*"] and scope["path"] not in PROBES:
                app = TrustedHostMiddleware(app, limits.allowed_hosts)
        await app(scope, receive, send)


def may_have_body(scope: Scope) -> bool:
    """Tell whether a body can follow. In HTTP/2 it needs no header."""
    return scope.get("http_version") == "2" or not BODY_HEADERS.isdisjoint(
        dict(scope["headers"])
    )
