"""Liveness and readiness, for whatever restarts the service or routes to it."""

from fastapi import APIRouter

router = APIRouter(prefix="/health", include_in_schema=False)


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers. Does no I/O, so that a slow dependency restarts nothing."""
    return {"status": "ok"}


@router.get("/ready")
async def ready() -> dict[str, str]:
    """Requests may be routed here. Ask here whatever they can't be served without."""
    return {"status": "ok"}
