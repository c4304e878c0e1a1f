"""FastAPI with what every service needs."""

import inspect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware import Middleware
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from app.errors import HANDLERS, UnhandledErrors
from app.limits import LimitSettings, RequestLimits
from app.request_log import RequestLog


class Service(FastAPI):
    """FastAPI with request ids and access lines, JSON errors and short operation ids."""

    def __init__(self, **options: Any) -> None:
        # Routers that were included without options, by the id of the route that FastAPI made of each.
        self.included: dict[int, APIRouter] = {}
        options.setdefault("generate_unique_id_function", operation_id)
        # Otherwise each request looks for an OpenTelemetry SDK, and finds none.
        off = {"tracing": False, "metrics": False, "logs": False}
        options.setdefault("telemetry", off)
        options["exception_handlers"] = HANDLERS | options.get("exception_handlers", {})
        # The last one is the innermost.
        innermost = Middleware(UnhandledErrors)
        options["middleware"] = [*options.get("middleware", ()), innermost]
        super().__init__(**options)
        # The defaults, until the lifespan reads the environment.
        self.limits = LimitSettings.model_construct()
        self.router.lifespan_context = self.limited(self.router.lifespan_context)

    def build_middleware_stack(self) -> ASGIApp:
        self.flatten()
        return RequestLog(RequestLimits(super().build_middleware_stack()))

    def limited(self, lifespan: Lifespan[Any]) -> Lifespan[Any]:
        """Return the lifespan, with the limits applied that the settings have."""

        @asynccontextmanager
        async def limited(app: Any) -> AsyncGenerator[Any]:
            async with lifespan(app) as state:
                settings = (state or {}).get("settings")
                if not isinstance(settings, LimitSettings):
                    settings = LimitSettings()
                self.limits = settings
                if not self.limits.api_docs:
                    self.hide_docs()
                yield state

        return limited

    def hide_docs(self) -> None:
        """Remove the OpenAPI document and the pages that show it."""
        oauth2 = self.swagger_ui_oauth2_redirect_url
        paths = {self.openapi_url, self.docs_url, self.redoc_url, oauth2}
        for route in [*self.routes]:
            if type(route) is Route and route.path in paths:
                self.routes.remove(route)

    def include_router(self, router: APIRouter, **options: Any) -> None:
        super().include_router(router, **options)
        if not options:
            self.included[id(self.routes[-1])] = router

    def flatten(self) -> None:
        """Put the routes of each plain router in its place, when the service starts.

        FastAPI would match each request to the routes of an included router twice.
        """
        routes = [*self.routes]
        self.routes.clear()
        for route in routes:
            router = self.included.get(id(route))
            if router and is_plain(router):
                for plain in router.routes:
                    options = {name: getattr(plain, name) for name in ROUTE_OPTIONS}
                    self.router.add_api_route(**options, route_class_override=APIRoute)
            else:
                self.routes.append(route)


ROUTE_OPTIONS = {*inspect.signature(APIRouter.add_api_route).parameters} - {
    "self",
    "route_class_override",
}


def is_plain(router: APIRouter) -> bool:
    """Tell whether a router has nothing but HTTP routes that can be added once more."""
    return (
        type(router) is APIRouter
        and all(
            type(route) is APIRoute and not route.stream_item_type
            for route in router.routes
        )
        and not router.form_limits
        # The files that `router.frontend()` serves.
        and not getattr(router, "_frontend_routes", True)
    )


def operation_id(route: APIRoute) -> str:
    """Name an operation after its function, which makes good names in generated clients."""
    return route.name
