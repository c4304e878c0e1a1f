"""Write the lock that the template renders (docs/lock.md)."""


class LockError(Exception):
    """Say why nothing was locked, and what to do."""
