"""The settings of every service: its environment, its logs and what it connects to."""

import os
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
from dotenv import dotenv_values
from pydantic_settings import EnvSettingsSource

from app.limits import LimitSettings


class RuntimeSettings(LimitSettings):
    """Reads each field from the environment variable of its name, or from a file.

    `database_url`, for example, is read from `DATABASE_URL`, or else from the file that
    `DATABASE_URL_FILE` names, or else from `/run/secrets/database_url`.
    """

    environment: Literal["development", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    cache_url: pydantic.Secret[pydantic.RedisDsn]
    database_url: pydantic.Secret[pydantic.PostgresDsn]
    # How many requests of a worker use the database at once, and the connections that it holds for them.
    database_pool_size: int = pydantic.Field(10, ge=1)

    @classmethod
    def read(cls) -> Self:
        """Read the settings. For most type checkers, a call of the class lacks the fields without a default."""
        return cls.model_validate({})

    @pydantic.model_validator(mode="before")
    @classmethod
    def read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take a field that has no variable from its file, unless that is empty."""
        variables = {**dotenv_values(".env"), **os.environ}
        source = EnvSettingsSource(cls)
        for name in cls.model_fields.keys() - values.keys():
            named = variables.get(f"{name}_FILE".upper())
            path = Path(named or f"/run/secrets/{name}")
            try:
                text = path.read_text().strip() if named or path.exists() else ""
                if text:
                    field = cls.model_fields[name]
                    values[name] = source.prepare_field_value(name, field, text, False)
            except (OSError, ValueError) as error:
                # The other errors are of text that is not UTF-8, and of a list that is no JSON.
                reason = f"the file {path} can't be read: {getattr(error, 'strerror', error)}"
                raise ValueError(f"{name.upper()}: {reason}") from error
        return values
