"""Fixtures that render the template."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import copier
import jinja2
import pytest

from harness.containers import why_no_engine
from harness.matrix import ASKED, ROOT, Answers, label, telling
from harness.stacks import DEPLOYMENTS, POOL_SIZE, WORKERS, Image, Stack, stacked

Render = Callable[..., Path]
Services = list[tuple[Answers, Path]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots", action="store_true", help="accept the container files as they are rendered now"
    )
    parser.addoption(
        "--all-commits",
        action="store_true",
        help="update services of every commit, and more generated histories",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("docker") and (reason := why_no_engine()):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure() -> None:
    _compile_each_source_once()


def _compile_each_source_once() -> None:
    """Copier compiles every file again for every render, which is most of what a render costs."""
    compile_source: Any = jinja2.Environment.compile
    compiled: dict[Any, Any] = {}

    # The file's name is only for tracebacks, and each clone of the template has another one.
    def compile_once(
        env: jinja2.Environment,
        source: Any,
        name: Any = None,
        filename: Any = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        key = (type(env), env.trim_blocks, source, name, args, tuple(options.items()))
        if key not in compiled:
            compiled[key] = compile_source(env, source, name, filename, *args, **options)
        return compiled[key]

    jinja2.Environment.compile = compile_once  # type: ignore[method-assign,assignment]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree's template as a plain folder: faster to render than a clone, and never stale."""
    copy = tmp_path_factory.mktemp("template")
    shutil.copy(ROOT / "copier.yml", copy)
    for folder in ("includes", "template"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def render_to(template: Path) -> Callable[..., Path]:
    """Render into a folder, without trust; raises what Copier raises, and for an answer to no question."""

    def render_to(destination: Path, **answers: Any) -> Path:
        assert answers.keys() <= ASKED.keys(), f"no such question: {answers.keys() - ASKED.keys()}"
        copier.run_copy(str(template), destination, data=answers, defaults=True, quiet=True, unsafe=False)
        return destination

    return render_to


@pytest.fixture
def render(render_to: Callable[..., Path], tmp_path: Path) -> Render:
    """Render a service with these answers, beside the defaults, into a new folder."""

    def render(name: str = "orders-api", **answers: Any) -> Path:
        return render_to(tmp_path / name, **answers)

    return render


@pytest.fixture(scope="session")
def services(render_to: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Services to look at, side by side in one folder so that a tool can be run over all of them at once."""
    folder = tmp_path_factory.mktemp("services")
    return [
        (answers, render_to(folder / label(answers).replace(".", ""), project_name="orders-api", **answers))
        for answers in telling()
    ]


@pytest.fixture(scope="module")
def deployment(
    render_to: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Stack]]:
    """A service with this database and a cache, in production; started once."""
    running: dict[str, Stack] = {}
    sizes = {"DATABASE_POOL_SIZE": str(POOL_SIZE)}
    with ExitStack() as held:

        def deployment(database: str) -> Stack:
            if database not in running:
                # Not WEB_CONCURRENCY alone: the limit of the memory goes by the answer.
                answers = DEPLOYMENTS[database] | {"workers": WORKERS}
                service = render_to(tmp_path_factory.mktemp("service") / "orders-api", **answers)
                image = held.enter_context(Image(service, answers))
                stack = held.enter_context(
                    stacked(service, "compose.prod.yaml", answers, **image.environment, **sizes)
                )
                running[database] = stack.up()
            return running[database]

        yield deployment
