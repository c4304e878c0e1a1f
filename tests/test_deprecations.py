"""A deprecated function is an error in a service's own code, and only shown in that of packages."""

from pathlib import Path

import pytest

from harness.matrix import DEFAULTS
from harness.running import run
from tests.conftest import RenderTo

pytestmark = [pytest.mark.project, pytest.mark.usefixtures("newest_python")]

TEST = """import warnings


def test_the_use_of_a_deprecated_function() -> None:
    warnings.warn_explicit("old", DeprecationWarning, "{module}.py", 1, module="{module}")
"""


@pytest.fixture
def service(installed: RenderTo) -> Path:
    return installed(**DEFAULTS)


@pytest.mark.parametrize("module", ["app.items", "test_items", "main"])
def test_a_deprecation_in_the_services_own_code_is_an_error(service: Path, module: str) -> None:
    (service / "tests/test_old.py").write_text(TEST.format(module=module))
    with pytest.raises(AssertionError, match="DeprecationWarning: old"):
        run("pytest tests/test_old.py", service)


@pytest.mark.parametrize("module", ["anyio.pytest_plugin", "starlette.testclient"])
def test_a_deprecation_between_packages_is_shown_and_fails_nothing(service: Path, module: str) -> None:
    (service / "tests/test_old.py").write_text(TEST.format(module=module))
    assert "DeprecationWarning: old" in run("pytest tests/test_old.py", service)


def test_another_warning_is_an_error(service: Path) -> None:
    (service / "tests/test_old.py").write_text(
        TEST.format(module="anyio").replace("DeprecationWarning", "RuntimeWarning")
    )
    with pytest.raises(AssertionError, match="RuntimeWarning: old"):
        run("pytest tests/test_old.py", service)
