"""What the environment decides."""

from typing import Literal

from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """One field for each variable: `log_level` is read from `LOG_LEVEL`."""

    environment: Literal["development", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
