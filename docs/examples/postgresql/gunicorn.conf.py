"""The settings that `gunicorn app.main:app` reads."""

import os
import sys
from typing import Any

from pydantic import ValidationError
from uvicorn_worker import UvicornWorker

bind = f"0.0.0.0:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
logconfig_json = "app/logging.json"
# The socket of `gunicornc`, which is not used here, would need a writable home directory.
control_socket_disable = True
# Workers touch a file there every few seconds to show that they live, so keep it off the disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
worker_class = "uvicorn_worker.UvicornWorker"
UvicornWorker.CONFIG_KWARGS |= {"server_header": False, "timeout_graceful_shutdown": 20}
# Longer than the worker's own limit, to leave time for the lifespan to end.
graceful_timeout = 25


def post_fork(server: Any, worker: Any) -> None:
    """Configure Uvicorn's loggers again, which the worker's class has changed."""
    from app.logs import configure

    configure()


def on_starting(server: Any) -> None:
    """Check the settings before there are workers: their failed starts can end in a traceback."""
    from app.environment import what_to_set
    from app.settings import Settings

    try:
        Settings.model_validate({})
    except ValidationError as error:
        server.log.critical(what_to_set(error))
        sys.exit(1)
