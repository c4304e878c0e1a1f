"""The service's own settings."""

from app.runtime_settings import RuntimeSettings


class Settings(RuntimeSettings):
    """One field for each environment variable: `page_size: int = 50` is read from `PAGE_SIZE`."""
