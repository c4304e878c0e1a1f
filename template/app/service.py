"""FastAPI with what every service needs."""

import inspect
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware import Middleware
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from app.errors import HANDLERS, UnhandledErrors
from app.request_log import RequestLog


class Service(FastAPI):
    """FastAPI with request ids and access lines, JSON errors and short operation ids."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "exception_handlers": HANDLERS,
            "generate_unique_id_function": operation_id,
            "middleware": [Middleware(UnhandledErrors)],
            # Otherwise each request looks for an OpenTelemetry SDK, which isn't installed.
            "telemetry": {"tracing": False, "metrics": False, "logs": False},
        }
        super().__init__(**(defaults | options))

    def build_middleware_stack(self) -> ASGIApp:
        return RequestLog(super().build_middleware_stack())

    def include_router(self, router: APIRouter, **options: Any) -> None:
        """Add the routes of a plain router to the application itself.

        FastAPI would match each request to the routes of an included router twice. Include a
        router when it has all its routes.
        """
        if options or not is_plain(router):
            super().include_router(router, **options)
            return
        for route in router.routes:
            route_options = {name: getattr(route, name) for name in ROUTE_OPTIONS}
            self.add_api_route(**route_options)


ROUTE_OPTIONS = [*inspect.signature(FastAPI.add_api_route).parameters][1:]


def is_plain(router: APIRouter) -> bool:
    """Tell whether a router has nothing but HTTP routes."""
    return (
        type(router) is APIRouter
        and all(type(route) is APIRoute for route in router.routes)
        and type(router.lifespan_context) is type(APIRouter().lifespan_context)
        and not (router.on_startup or router.on_shutdown)
    )


def operation_id(route: APIRoute) -> str:
    """Name an operation after its function, which makes good names in generated clients."""
    return route.name
