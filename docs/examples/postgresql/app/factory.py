"""Creates the application with what it has before its own routes."""

from collections.abc import Mapping

from app import health, logs
from app.lifespan import Opener, lifespan_of
from app.service import Service

# At import, because the server logs before it runs the lifespan.
logs.configure()


def create_app(resources: Mapping[str, Opener] | None = None) -> Service:
    """Create the application.

    Each resource is opened at the start and closed at the end. In between it is the value of
    its name in `request.state`.
    """
    app = Service(
        title="orders-api",
        lifespan=lifespan_of(resources or {}),
    )
    health.add_probes(app)
    return app
