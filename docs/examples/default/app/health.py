"""Liveness and readiness, for whatever restarts the service or routes requests to it."""

from fastapi import FastAPI


async def live() -> dict[str, str]:
    """Answer while the process lives. Without I/O, so that a slow dependency restarts nothing."""
    return {"status": "ok"}


async def ready() -> dict[str, str]:
    """Answer while requests can be served."""
    return {"status": "ok"}


def add_probes(app: FastAPI) -> None:
    """Add `/health/live` and `/health/ready`, which are not part of the documented API."""
    app.add_api_route("/health/live", live, include_in_schema=False)
    app.add_api_route("/health/ready", ready, include_in_schema=False)
