"""The fixtures of this service's own tests."""

pytest_plugins = ["client_fixtures"]
