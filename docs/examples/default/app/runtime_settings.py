"""The settings of every service: its environment, its logs and what it connects to."""

import os
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from app.limits import LimitSettings


class RuntimeSettings(LimitSettings):
    """Reads each field from the environment variable of its name, or from a file.

    `database_url`, for example, is read from `DATABASE_URL`, or else from the file that
    `DATABASE_URL_FILE` names, or else from `/run/secrets/database_url`.
    """

    environment: Literal["development", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"

    @classmethod
    def read(cls) -> Self:
        """Read the settings. For most type checkers, a call of the class lacks the fields without a default."""
        return cls.model_validate({})

    @pydantic.model_validator(mode="before")
    @classmethod
    def read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take a field that has no variable from its file."""
        for name in cls.model_fields.keys() - values.keys():
            named = os.environ.get(f"{name}_FILE".upper())
            path = Path(named or f"/run/secrets/{name}")
            try:
                if named or path.exists():
                    values[name] = path.read_text().strip()
            except OSError as error:
                reason = f"the file {path} can't be read: {error.strerror}"
                raise ValueError(f"{name.upper()}: {reason}") from error
        return values
