"""Tests that a service answers as FastAPI does although the routes of its routers are in one list."""

import json
import re

import pytest

from harness.matrix import DEFAULTS
from harness.running import missing_python, run
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

# Runs in a service. Each case is built twice: as a service has it, and with FastAPI's own `include_router`.
COMPARISON = '''"""Compares the applications of each case, and writes what differs into a file."""

import json
import logging
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Form, Header, HTTPException
from fastapi import Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.routing import Mount, NoMatchFound, Route

from app import items
from app.database import get_database
from app.service import Service


# Some operations have two methods and one id, and some fail.
warnings.simplefilter("ignore")
logging.disable()


class Plain(Service):
    include_router = FastAPI.include_router


class Item(BaseModel):
    name: str
    price: float = 1


def routes(router: Any) -> Any:
    """Add a route of each kind."""

    @router.get("/things/{thing_id:int}")
    async def read_thing(thing_id: int, q: str | None = None) -> dict[str, Any]:
        return {"id": thing_id, "q": q}

    @router.patch("/things/{thing_id}", deprecated=True, summary="Change it", tags=["changes"])
    async def change_thing(thing_id: str, item: Item) -> Item:
        return item

    @router.get("/files/{path:path}", response_class=PlainTextResponse)
    async def read_file(path: str) -> str:
        return path

    @router.post("/things/", status_code=201, responses={409: {"model": Item}})
    async def create_thing(item: Item, response: Response) -> Item:
        response.headers["Location"] = "/things/1"
        return item

    @router.put("/texts", response_model_exclude_unset=True, include_in_schema=False)
    async def put_text(text: Annotated[Item, Body(embed=True)]) -> Item:
        return text

    @router.api_route("/many", methods=["GET", "HEAD", "OPTIONS"], operation_id="many_methods")
    async def many(request: Request) -> dict[str, str]:
        return {"method": request.method, "route": request.scope["route"].name}

    @router.get("/links")
    async def links(request: Request) -> str:
        return str(request.url_for("read_thing", thing_id=5))

    @router.get("/response")
    async def respond() -> Response:
        """Describe it.

        \\f Not this.
        """
        return JSONResponse({"raw": True}, 202)

    @router.get("/fails")
    def fail() -> None:
        raise HTTPException(418, headers={"X-Tea": "yes"})

    @router.post("/form")
    async def form(name: Annotated[str, Form()], more: Annotated[str, Form()] = "") -> str:
        return name + more

    return router


ITEM = json.dumps({"name": "lamp"})
PATHS = """
    / /nothing /things /things/ /things/5 /things/5/ /things/5?q=x /things/x /api/things/5 /inner/things/5
    /files/a/b.txt /files/ /texts /many /many/ /links /response /fails /form /late /other /stream /events
    /lines /mounted/x /page.html /docs /openapi.json /items/ /items/0 /items/x
""".split()
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
# Each is a method, a path, and a body with its type.
Asked = tuple[str, str, str, str]
WITHOUT_A_BODY: list[Asked] = [
    (method, path, "", "") for path in PATHS for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT")
]
WITH_A_BODY: list[Asked] = [
    ("POST", "/things/", ITEM, JSON),
    ("POST", "/things", ITEM, JSON),
    ("POST", "/things/", "{}", JSON),
    ("POST", "/things/", "{", JSON),
    ("POST", "/things/", ITEM, "text/plain"),
    ("POST", "/things/", ITEM, ""),
    ("POST", "/things/", json.dumps({"name": "l" * 500}), JSON),
    ("PATCH", "/things/a", ITEM, JSON),
    ("PATCH", "/things/a/b", ITEM, JSON),
    ("PUT", "/texts", json.dumps({"text": {"name": "lamp"}}), JSON),
    ("POST", "/form", "name=a&more=b", FORM),
    ("POST", "/form", "a=1&b=2&name=a&more=b", FORM),
    ("POST", "/form", "name=" + "a" * 500, FORM),
    ("POST", "/items", "{}", JSON),
    ("PATCH", "/items/5", json.dumps({"name": None}), JSON),
]


def dependency(name: str) -> Any:
    async def noted(response: Response, x_wrong: Annotated[str, Header()] = "") -> None:
        response.headers["X-Dependencies"] = response.headers.get("X-Dependencies", "") + name
        if x_wrong == name:
            raise HTTPException(403, name)

    return Depends(noted)


class Shouting(APIRoute):
    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def shout(request: Request) -> Response:
            response = await handler(request)
            response.headers["X-Shout"] = "yes"
            return response

        return shout


class Own(APIRouter):
    pass


# The cases. Each returns the application, and "flat" or "included": how its router is served.
Case = tuple[Service, str]


def the_example(new: type[Service]) -> Case:
    app = new()
    app.include_router(items.router)
    # No request reaches it that needs a database.
    app.dependency_overrides[get_database] = lambda: None
    return app, "flat"


def a_router(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter()))
    return app, "flat"


def a_router_between_other_routes(new: type[Service]) -> Case:
    app = new()

    @app.get("/things/{first}")
    async def before(first: str) -> str:
        return "before"

    app.include_router(routes(APIRouter()))

    @app.api_route("/{last}", methods=["GET", "DELETE"])
    async def after(last: str) -> str:
        return "after"

    return app, "flat"


def two_routers_with_the_same_paths(new: type[Service]) -> Case:
    app = new()
    first, second = APIRouter(), routes(APIRouter())
    first.get("/things/{first_id}", name="first")(lambda first_id: "first")
    first.delete("/things/{first_id}", name="delete")(lambda first_id: "deleted")
    app.include_router(first)
    app.include_router(second)
    return app, "flat"


def a_router_with_a_prefix_tags_and_responses(new: type[Service]) -> Case:
    app = new(responses={500: {"description": "Ours"}}, default_response_class=HTMLResponse)
    responses = {404: {"description": "Nothing"}, 409: {"model": Item}}
    router = APIRouter(prefix="/api", tags=["api"], responses=responses)
    app.include_router(routes(router))
    return app, "flat"


def a_router_that_is_deprecated(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter(deprecated=True)))
    return app, "flat"


def a_router_that_is_hidden(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter(include_in_schema=False)))
    return app, "flat"


def an_application_that_is_deprecated_or_hidden(new: type[Service]) -> Case:
    app = new(deprecated=True)
    app.include_router(routes(APIRouter()))
    return app, "flat"


def dependencies_of_all(new: type[Service]) -> Case:
    app = new(dependencies=[dependency("a")])
    app.include_router(routes(APIRouter(dependencies=[dependency("r"), dependency("s")])))
    return app, "flat"


def overridden_dependencies(new: type[Service]) -> Case:
    def real() -> str:
        return "real"

    app, router = new(), APIRouter()

    @router.get("/other")
    async def other(found: Annotated[str, Depends(real)]) -> str:
        return found

    app.include_router(router)
    app.dependency_overrides[real] = lambda: "another"
    return app, "flat"


def response_classes(new: type[Service]) -> Case:
    app = new(default_response_class=PlainTextResponse)
    app.include_router(routes(APIRouter(default_response_class=HTMLResponse)))
    return app, "flat"


def the_response_class_of_the_application(new: type[Service]) -> Case:
    app = new(default_response_class=HTMLResponse)
    app.include_router(routes(APIRouter()))
    return app, "flat"


def unique_ids_of_the_router(new: type[Service]) -> Case:
    app = new()
    router = APIRouter(generate_unique_id_function=lambda route: "of-router-" + route.name)
    app.include_router(routes(router))
    return app, "flat"


def unique_ids_of_the_application(new: type[Service]) -> Case:
    app = new(generate_unique_id_function=lambda route: "of-app-" + route.name)
    app.include_router(routes(APIRouter()))
    return app, "flat"


def callbacks(new: type[Service]) -> Case:
    paid, shipped = APIRouter(), APIRouter()
    paid.post("{$request.body#/url}", name="paid")(lambda: None)
    shipped.post("{$request.body#/other}", name="shipped")(lambda: None)
    app, router = new(), APIRouter(callbacks=paid.routes)

    @router.post("/things/", callbacks=shipped.routes)
    async def create(item: Item) -> None:
        pass

    router.get("/other", name="other")(lambda: "other")

    app.include_router(router)
    return app, "flat"


def a_content_type_that_is_not_checked(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter(strict_content_type=False)))
    return app, "flat"


def a_content_type_that_the_application_does_not_check(new: type[Service]) -> Case:
    app = new(strict_content_type=False)
    app.include_router(routes(APIRouter()))
    return app, "flat"


def bodies_with_a_limit(new: type[Service]) -> Case:
    app = new(max_body_size=400)
    app.include_router(routes(APIRouter(max_body_size=100)))
    return app, "flat"


def routes_with_limits_of_their_own(new: type[Service]) -> Case:
    app = new(max_body_size=2)
    router = APIRouter(max_body_size=1)

    @router.post("/things/", max_body_size=400)
    async def create(item: Item) -> Item:
        return item

    @router.post("/form", max_body_size=400)
    async def form(request: Request) -> int:
        return len(await request.body())

    app.include_router(router)
    app.include_router(routes(APIRouter(max_body_size=100)))
    return app, "flat"


def an_inclusion_with_a_limit(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter()), max_body_size=100)
    return app, "included"


def forms_with_a_limit(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter(form_limits={"max_fields": 3})))
    return app, "included"


def no_redirects(new: type[Service]) -> Case:
    app = new(redirect_slashes=False)
    app.include_router(routes(APIRouter()))
    return app, "flat"


def routes_that_are_added_after_the_router(new: type[Service]) -> Case:
    app, router = new(), APIRouter()
    app.include_router(router)
    routes(router)

    @router.get("/late")
    async def late() -> str:
        return "late"

    return app, "flat"


def an_application_with_a_route_class(new: type[Service]) -> Case:
    app = new()
    app.router.route_class = Shouting
    app.include_router(routes(APIRouter()))
    routes(app)
    return app, "flat"


def an_empty_path(new: type[Service]) -> Case:
    app, router = new(), APIRouter(prefix="/other")

    @router.get("")
    async def other() -> str:
        return "other"

    app.include_router(router)
    return app, "flat"


def a_stream_of_lines_without_a_type(new: type[Service]) -> Case:
    app, router = new(), APIRouter()

    @router.get("/lines")
    async def lines():
        yield {"a": 1}
        yield {"a": 2}

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))

    app.include_router(router)
    return app, "flat"


def streams_of_a_type(new: type[Service]) -> Case:
    app, router = new(), APIRouter()

    @router.get("/lines")
    async def lines() -> AsyncIterator[Item]:
        yield Item(name="lamp")

    @router.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[Item]:
        yield Item(name="lamp")

    app.include_router(router)
    return app, "included"


def options_of_the_inclusion(new: type[Service]) -> Case:
    app = new()
    options = {"prefix": "/api", "tags": ["more"], "deprecated": True, "dependencies": [dependency("i")]}
    app.include_router(routes(APIRouter()), **options)
    return app, "included"


def a_nested_router(new: type[Service]) -> Case:
    app, outer = new(), APIRouter(tags=["outer"], dependencies=[dependency("o")])
    outer.include_router(routes(APIRouter(prefix="/inner", dependencies=[dependency("n")])))
    outer.get("/other", name="other")(lambda: "other")
    app.include_router(outer)
    return app, "included"


def a_router_that_is_nested_later(new: type[Service]) -> Case:
    app, outer = new(), APIRouter(prefix="/api")
    app.include_router(outer)
    outer.include_router(routes(APIRouter()))
    return app, "included"


def a_route_class(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(APIRouter(route_class=Shouting)))
    return app, "included"


def a_class_of_routers(new: type[Service]) -> Case:
    app = new()
    app.include_router(routes(Own()))
    return app, "included"


def a_websocket(new: type[Service]) -> Case:
    app = new()
    router = routes(APIRouter(prefix="/api", dependencies=[dependency("r")]))

    @router.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str, q: str) -> None:
        await websocket.accept()
        await websocket.send_text(room + q)

    app.include_router(router)
    return app, "included"


def mounts_and_starlette_routes(new: type[Service]) -> Case:
    async def plain(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    app = new()
    router = APIRouter(routes=[Mount("/mounted", routes=[Route("/x", plain)])])
    router.add_route("/other", plain, methods=["GET", "DELETE"])
    app.include_router(routes(router))
    app.mount("/api", Service(title="mounted"))
    return app, "included"


PAGES = Path(mkdtemp())
(PAGES / "page.html").write_text("<p>A page")


def a_frontend(new: type[Service]) -> Case:
    app, router = new(), routes(APIRouter())
    router.frontend("/", directory=PAGES)
    app.include_router(router)
    return app, "included"


def a_lifespan_of_the_router(new: type[Service]) -> Case:
    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[dict[str, str]]:
        yield {"opened": "by the router"}

    app, router = new(), APIRouter(lifespan=lifespan)

    @router.get("/other")
    async def other(request: Request) -> str:
        return str(getattr(request.state, "opened", "not opened"))

    app.include_router(router)
    return app, "flat"


def handlers_of_the_start(new: type[Service]) -> Case:
    begun: list[str] = []
    app, router = new(), APIRouter(on_startup=[lambda: begun.append("router")])
    router.get("/other", name="other")(lambda: begun)
    app.include_router(router)
    return app, "flat"


def behaviour(app: Service) -> dict[str, Any]:
    """Return what a client finds out about an application."""
    found: dict[str, Any] = {"openapi before the start": app.openapi()}
    app.openapi_schema = None
    with TestClient(app, follow_redirects=False, raise_server_exceptions=False) as client:

        def ask(method: str, path: str, body: str, kind: str, **headers: str) -> Any:
            sent = headers | ({"Content-Type": kind} if kind else {})
            response = client.request(method, path, content=body or None, headers=sent)
            received = {name: value for name, value in response.headers.items() if name != "x-request-id"}
            return response.status_code, received, response.text

        for asked in [*WITHOUT_A_BODY, *WITH_A_BODY]:
            found[" ".join(asked)] = ask(*asked)
        for name in "arsion":
            found[f"without the dependency {name}"] = ask("GET", "/response", "", "", **{"X-Wrong": name})
        for path in ("/api/chat/a?q=b", "/api/chat/a", "/nothing"):
            try:
                with client.websocket_connect(path) as websocket:
                    found[f"WebSocket {path}"] = websocket.receive_text()
            except Exception as error:
                found[f"WebSocket {path}"] = repr(error)
    for name, parameters in (("read_thing", {"thing_id": 5}), ("read_item", {"item_id": 5}), ("other", {})):
        try:
            found[f"url of {name}"] = app.url_path_for(name, **parameters)
        except NoMatchFound as error:
            found[f"url of {name}"] = repr(error)
    found["openapi after the start"] = app.openapi()
    return found


def has_included_router(app: Service) -> bool:
    return any(type(route).__name__ == "_IncludedRouter" for route in app.routes)


def compare(case: Any) -> list[str]:
    (service, served), (plain, _) = case(Service), case(Plain)
    ours, expected = behaviour(service), behaviour(plain)
    differences = [
        f"{name}: {ours[name]} instead of {value}"
        for name, value in expected.items()
        if json.dumps(ours[name]) != json.dumps(value)
    ]
    if has_included_router(service) != (served == "included"):
        differences.append(f"the router is not {served}")
    assert has_included_router(plain), "FastAPI has changed, and nothing is compared"
    statuses = {expected[" ".join(asked)][0] for asked in WITHOUT_A_BODY}
    assert {200, 404, 405} <= statuses, statuses
    return differences


CASES = [case for case in [*globals().values()] if getattr(case, "__annotations__", {}).get("return") is Case]
Path("differences.json").write_text(json.dumps({case.__name__: compare(case) for case in CASES}))
'''


CASES = re.findall(r"^def (\w+)\(new: ", COMPARISON, re.MULTILINE)


@pytest.fixture(scope="module")
def differences(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What differs between FastAPI and a service, in each case."""
    if missing := missing_python(DEFAULTS["python_version"]):
        pytest.skip(missing)
    service = render_to(tmp_path_factory.mktemp("service") / "orders-api", database="sqlite")
    (service / "comparison.py").write_text(COMPARISON)
    run("uv add --quiet python-multipart\nuv run --quiet python comparison.py", service)
    found: dict[str, list[str]] = json.loads((service / "differences.json").read_text())
    return found


@pytest.mark.xdist_group("flat-routers")
@pytest.mark.parametrize("case", CASES)
def test_a_service_answers_as_fastapi_does_and_has_its_openapi_document(
    differences: dict[str, list[str]], case: str
) -> None:
    assert differences[case] == []
