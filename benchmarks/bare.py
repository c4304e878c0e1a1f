"""Serves the route `/items/5?q=x` without the template, in four applications.

None of them logs requests. If `ACCESS_LOG` is set, the server writes its own access log.
"""

import json
import logging
import os
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

# In code, because `fastapi run` has no option that turns the access log off.
if "ACCESS_LOG" not in os.environ:
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


class Item(BaseModel):
    item_id: int
    q: str | None


async def read_item(item_id: int, q: str | None = None) -> Item:
    return Item(item_id=item_id, q=q)


async def well() -> dict[str, str]:
    return {"status": "ok"}


fastapi = FastAPI()
fastapi.get("/items/{item_id}")(read_item)

# The same routers as in the service, included as FastAPI's guide to larger applications does.
items = APIRouter(prefix="/items")
items.get("/{item_id}")(read_item)
health = APIRouter(prefix="/health")
health.get("/live")(well)
health.get("/ready")(well)
routers = FastAPI()
routers.include_router(items)
routers.include_router(health)


async def read_plainly(request: Request) -> JSONResponse:
    item_id = int(request.path_params["item_id"])
    return JSONResponse({"item_id": item_id, "q": request.query_params.get("q")})


starlette = Starlette(routes=[Route("/items/{item_id}", read_plainly)])


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    query = parse_qs(scope["query_string"].decode())
    item = {"item_id": int(scope["path"].rpartition("/")[2]), "q": query.get("q", [None])[0]}
    body = json.dumps(item).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
