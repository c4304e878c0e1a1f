"""Provides the fixtures that render, install and deploy services."""

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import copier._main
import copier._template
import copier._vcs
import filelock
import pytest

from harness import owners, releases
from harness.containers import why_no_engine
from harness.matrix import ASKED, DEFAULTS, ROOT, Answers, label, rendered
from harness.running import install, missing_python
from harness.stacks import DEPLOYMENTS, POOL_SIZE, WORKERS, Image, Stack, stacked
from playground.compiled_once import compile_each_source_once

Render = Callable[..., Path]
RenderTo = Callable[..., Path]
Services = list[tuple[Answers, Path]]

# Seconds to wait for another process of the test run.
PATIENCE = 600


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots",
        action="store_true",
        help="accept the container files and the examples as they are rendered now",
    )
    parser.addoption(
        "--variants",
        action="store_true",
        help="show with every server, database and forge what the other tests show with one of them",
    )
    parser.addoption(
        "--all-commits",
        action="store_true",
        help="update services of every commit, and more generated histories",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("variants"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("variant")])
        items[:] = [item for item in items if not item.get_closest_marker("variant")]
    for item in items:
        if item.get_closest_marker("docker") and (reason := why_no_engine()):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure() -> None:
    compile_each_source_once()
    _parse_each_configuration_once()
    _ask_git_for_its_file_mode_once()
    _update_submodules_where_there_are_some()


def _parse_each_configuration_once() -> None:
    """Have Copier parse each `copier.yml` once: PyYAML takes a tenth of a second for every render."""
    module: Any = copier._template
    load = module.load_template_config
    parsed: dict[bytes, Any] = {}

    def load_once(file: Path, *args: Any, **options: Any) -> Any:
        text = file.read_bytes()
        # What is included is in other files, which may differ.
        if b"!include" in text:
            return load(file, *args, **options)
        if text not in parsed:
            parsed[text] = load(file, *args, **options)
        return copy.deepcopy(parsed[text])

    module.load_template_config = load_once


def _ask_git_for_its_file_mode_once() -> None:
    """Have Copier ask for `core.fileMode` once in a render, and not with a git for each file."""
    worker_class: Any = copier._main.Worker
    synchronize = worker_class._sync_git_index_executable_bit

    def synchronize_where_modes_are_ignored(worker: Any, *args: Any) -> None:
        if (ignored := vars(worker).get("modes_are_ignored")) is None:
            git: Any = copier._vcs.get_git(context_dir=worker.subproject.local_abspath)
            asked: str = git("config", "--type=bool", "--get", "core.fileMode", retcode=None)
            ignored = vars(worker)["modes_are_ignored"] = asked.strip() == "false"
        if ignored:
            synchronize(worker, *args)

    worker_class._sync_git_index_executable_bit = synchronize_where_modes_are_ignored


def _update_submodules_where_there_are_some() -> None:
    """Have Copier run `git submodule` only in a clone that has some: it takes half of the time of a clone."""
    module: Any = copier._vcs
    get_git = module.get_git

    class Git:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.command = get_git(*arguments, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.command, name)

        def __getitem__(self, arguments: Any) -> Any:
            return self.command[arguments]

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            # Copier is in the clone's folder.
            if arguments[:1] == ("submodule",) and not Path(".gitmodules").exists():
                return ""
            return self.command(*arguments, **options)

    module.get_git = Git


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree's template as a plain folder: faster to render than a clone, and never stale."""
    copy = tmp_path_factory.mktemp("template")
    shutil.copy(ROOT / "copier.yml", copy)
    for folder in ("includes", "template"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def render_to(template: Path) -> RenderTo:
    """Render into a folder, without trust. Copier's errors are raised, and unknown questions are refused."""

    def render_to(destination: Path, unchecked: Answers | None = None, **answers: Any) -> Path:
        assert answers.keys() <= ASKED.keys(), f"no such question: {answers.keys() - ASKED.keys()}"
        answers |= unchecked or {}
        copier.run_copy(str(template), destination, data=answers, defaults=True, quiet=True, unsafe=False)
        return destination

    return render_to


@pytest.fixture
def render(render_to: RenderTo, tmp_path: Path) -> Render:
    """Render a service into a new folder, with the defaults for questions without an answer."""

    def render(name: str = "orders-api", **answers: Any) -> Path:
        return render_to(tmp_path / name, **answers)

    return render


# The services are rendered in this many parts, which the processes of a test run share.
PARTS = 16


@pytest.fixture(scope="session")
def services(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Render every combination, once for all processes, into one folder that a tool can run over."""
    together = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if together else base) / "services"
    folder.mkdir(exist_ok=True)
    places = [(answers, folder / label(answers).replace(".", "")) for answers in rendered()]
    # First the parts that no other process renders, then wait for the others.
    for patience in (0, PATIENCE):
        for part in range(PARTS):
            with suppress(filelock.Timeout), filelock.FileLock(f"{folder}-{part}.lock", timeout=patience):
                done = Path(f"{folder}-{part}.done")
                if not done.exists():
                    for answers, place in places[part::PARTS]:
                        render_to(place, project_name="orders-api", **answers)
                    done.touch()
    assert all(place.exists() for _, place in places)
    return places


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Path:
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / testrun_uid


@pytest.fixture(scope="session")
def installed(render_to: RenderTo, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> RenderTo:
    """Render and install a service with these answers, in a new folder."""

    def installed(**answers: Any) -> Path:
        if missing := missing_python(answers["python_version"]):
            pytest.skip(missing)
        service = render_to(tmp_path_factory.mktemp("service") / "orders-api", **answers)
        install(service, answers, shared)
        return service

    return installed


@pytest.fixture
def newest_python() -> None:
    """Skip a test if this machine lacks the Python of a default service."""
    if missing := missing_python(DEFAULTS["python_version"]):
        pytest.skip(missing)


# Repositories of the template


@pytest.fixture(scope="session")
def light_git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have git ignore the user's settings, and copy no sample hooks into Copier's repositories."""
    with owners.light_git(tmp_path_factory.mktemp("no-hooks")):
        yield


@pytest.fixture(scope="session")
def repository(light_git: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one commit with the working tree's template."""
    return owners.template_alone(tmp_path_factory.mktemp("alone") / "copier-fastapi")


@pytest.fixture(scope="session")
def history(light_git: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository whose newest commit is the working tree's template."""
    return owners.template_with_history(tmp_path_factory.mktemp("history") / "copier-fastapi")


@pytest.fixture(scope="session")
def year(light_git: None, shared: Path, request: pytest.FixtureRequest) -> Path:
    """A repository of the template with a year of releases, made once for all processes."""
    sampled = [] if request.config.getoption("all_commits") else [releases.DEFAULT]
    folder = shared / "year"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "lock"):
        if not (folder / "made").exists():
            releases.template_of_a_year(folder, *sampled)
            (folder / "made").touch()
    return folder / "copier-fastapi"


@pytest.fixture
def copier_fastapi(repository: Path, tmp_path: Path) -> Path:
    """A repository of the template that the test may change."""
    return shutil.copytree(repository, tmp_path / "copier-fastapi", symlinks=True)


# Deployments


@pytest.fixture(scope="module")
def deployment(
    render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Stack]]:
    """Start a service with this database and a cache in production. Each is started once."""
    running: dict[str, Stack] = {}
    sizes = {"DATABASE_POOL_SIZE": str(POOL_SIZE)}
    with ExitStack() as held:

        def deployment(database: str) -> Stack:
            if database not in running:
                # WEB_CONCURRENCY would not be enough, because the answer decides the memory limit.
                answers = DEPLOYMENTS[database] | {"workers": WORKERS}
                service = render_to(tmp_path_factory.mktemp("service") / "orders-api", **answers)
                image = held.enter_context(Image(service, answers))
                stack = held.enter_context(
                    stacked(service, "compose.prod.yaml", answers, **image.environment, **sizes)
                )
                running[database] = stack.up()
            return running[database]

        yield deployment
