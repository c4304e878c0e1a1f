"""Makes a repository of the template with a year of releases, each with the lock of its date.

The releases are a week apart. The newest has the dependencies of the working tree, as of the moment of its
lock. The others have the floors and pins of their dates.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from packaging.version import Version

from harness import owners, running
from harness.clones import commit, git
from harness.matrix import DEFAULTS, ROOT, Answers, environment, facts, values
from harness.owners import replace

PARTS = Path("includes/parts.jinja")
FACTORY = Path("template/{{ with_package }}/app/factory.py.jinja")
RUNTIME_SETTINGS = Path("template/{{ with_package }}/app/runtime_settings.py.jinja")

# The services that live through the year. Each needs a lock for each date.
DEFAULT: Answers = {}
PIP: Answers = {"package_manager": "pip"}
SERVERS: Answers = {"server": "granian", "database": "postgresql", "cache": "redis"}

# A new question whose default adds files only to new services: see docs/releasing.md.
QUESTION = """{name}:
  type: str
  help: Is there a {name}?
  default: >-
    {{{{ 'none' if (_copier_conf.dst_path | string ~ '/pyproject.toml') | fileglob else '{choice}' }}}}
  choices: [none, {choice}]

with_{name}:
  when: false
  default: "{{{{ '.' if {name} != 'none' }}}}"

"""
NEW_QUESTIONS = {"gateway": "caddy", "pipeline": "woodpecker"}
# Files that only the answers to the new questions bring.
NEW_FILES = {"gateway/Caddyfile", ".woodpecker.yaml"}

GATEWAY_IN_COMPOSE = """
  gateway:
    image: caddy:2
    ports:
      - 127.0.0.1:${GATEWAY_HOST_PORT:-8080}:8080
    volumes:
      - ./gateway/Caddyfile:/etc/caddy/Caddyfile:ro
"""

EQUIPMENT = '''"""Equips the application with what every service needs."""

from fastapi import FastAPI

from app import health


def equip(app: FastAPI) -> None:
    """Add the probes."""
    health.add_probes(app)
'''


# Moments


def recorded_moment() -> datetime:
    """Return the moment as of which the working tree's lock was made."""
    generated = [*(ROOT / "includes/generated").iterdir(), *(ROOT / "template").rglob("uv.lock.jinja")]
    found = (re.search(r"the index as of (\S+Z)", path.read_text()) for path in generated)
    [moment] = {match[1] for match in found if match}
    return datetime.fromisoformat(moment)


def as_of(moment: datetime) -> str:
    """Return the value of UV_EXCLUDE_NEWER for the index as of a moment."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Floors and locks


REQUIREMENT = re.compile(r"(?<=['\"])([\w-]+)((?:\[[\w,]+\])?)>=([\d.]+)")


def newest_versions(moment: datetime) -> dict[str, str]:
    """Return the version that uv chooses, as of a moment, for each package in the table of parts."""
    found = REQUIREMENT.findall((ROOT / PARTS).read_text())
    listed = ", ".join(f'"{name}{extras}"' for name, extras, _ in found)
    python = f'requires-python = ">={DEFAULTS["python_version"]}"'
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(
            f'[project]\nname = "all"\nversion = "0"\n{python}\ndependencies = [{listed}]\n'
        )
        lock(Path(folder), moment)
        return {name: str(max(each)) for name, each in locked(Path(folder)).items()}


def set_floors(template: Path, newest: Mapping[str, str]) -> None:
    """Ask for each dependency's newest version, as exactly as the working tree does, and for none newer."""
    of_today = {name: floor for name, _, floor in REQUIREMENT.findall((ROOT / PARTS).read_text())}

    def lowered(found: re.Match[str]) -> str:
        name, extras, floor = found.groups()
        if name in of_today:
            parts = len(of_today[name].split("."))
            floor = min(of_today[name], ".".join(newest[name].split(".")[:parts]), key=Version)
        return f"{name}{extras}>={floor}"

    parts = template / PARTS
    parts.write_text(REQUIREMENT.sub(lowered, parts.read_text()))


def lock(service: Path, moment: datetime, command: str = "uv lock") -> None:
    """Run a command that locks with the index as of a moment, without a record of the moment in uv.lock."""
    running.run(command, service, UV_EXCLUDE_NEWER=as_of(moment))
    if (file := service / "uv.lock").exists():
        text = re.sub(r"^exclude-newer = .*\n", "", file.read_text(), flags=re.MULTILINE)
        file.write_text(text.replace("[options]\n\n", "", 1))


def locked(service: Path) -> dict[str, set[Version]]:
    """Return the locked versions of each package of the index."""
    if (service / "uv.lock").exists():
        pattern = r'^name = "(.+)"\nversion = "(.+)"\nsource = \{ registry'
        text = (service / "uv.lock").read_text()
    else:
        pattern = r"^([\w.-]+)(?:\[.*\])?==([^ ;\\]+)"
        text = (service / "requirements-dev.txt").read_text()
    versions: dict[str, set[Version]] = {}
    for name, version in re.findall(pattern, text, re.MULTILINE):
        versions.setdefault(name, set()).add(Version(version))
    return versions


def project_of(template: Path, answers: Answers) -> str:
    """Render pyproject.toml of a new service."""
    others = {"project_name": "orders-api", "description": ""} | {
        f"with_{name}": "" for name in NEW_QUESTIONS
    }
    known = DEFAULTS | facts(**answers) | answers | others
    return environment(template).get_template("template/pyproject.toml.jinja").render(known)


def made_locks(pyproject: str, answers: Answers, moment: datetime) -> list[str]:
    """Return the text of each lock of a new service, locked as of a moment."""
    with tempfile.TemporaryDirectory() as folder:
        service = Path(folder)
        (service / "pyproject.toml").write_text(pyproject)
        if answers != PIP:
            lock(service, moment)
            return [(service / "uv.lock").read_text()]
        compiled = "uv pip compile pyproject.toml {}--universal --python-version {} --generate-hashes"
        for group, name in (("", "requirements.txt"), ("--group dev ", "requirements-dev.txt")):
            command = compiled.format(group, DEFAULTS["python_version"])
            lock(service, moment, f"{command} --no-annotate -o {name} > /dev/null")
        return [(service / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")]


def render_locks(template: Path, answers: Answers, locks: Sequence[str]) -> None:
    """Let the template render these locks for a service with these answers."""
    if answers == PIP:
        for name, text in zip(("requirements.txt", "requirements-dev.txt"), locks, strict=True):
            (template / f"template/{{{{ with_pip }}}}/{name}.jinja").write_text(raw(text))
        return
    server = (DEFAULTS | answers)["server"]
    write(template / f"includes/generated/{server}.lock.jinja", raw(locks[0]))
    include = "{% include 'includes/generated/' ~ server ~ '.lock.jinja' %}\n"
    (template / "template/{{ with_uv }}/uv.lock.jinja").write_text(include)


def raw(text: str) -> str:
    """Return a text as a template that renders to it."""
    return f"{{% raw %}}\n{text}{{% endraw %}}\n"


# What the releases change


def first(template: Path) -> None:
    """Begin with an older uv in the image."""
    replace(template / "copier.yml", r'^(uv_version:\n  when: false\n  default: )".*"$', r'\1"0.13.0"')


def add_a_line_to_the_dockerfile(template: Path) -> None:
    replace(template / "template/Dockerfile.jinja", r"^(STOPSIGNAL .*)$", r"ENV MALLOC_ARENA_MAX=2\n\1")


def move_uv_of_the_image(template: Path) -> None:
    newest = yaml.safe_load((ROOT / "copier.yml").read_text())["uv_version"]["default"]
    replace(template / "copier.yml", r'^(uv_version:\n  when: false\n  default: )".*"$', rf'\1"{newest}"')


def add_a_question(template: Path, name: str) -> None:
    question = QUESTION.format(name=name, choice=NEW_QUESTIONS[name])
    replace(template / "copier.yml", r"^(questions:[^]]*)\]", rf"\1, {name}]")
    replace(template / "copier.yml", r"^with_package:$", f"{question}with_package:")


def ask_for_a_gateway(template: Path) -> None:
    """Add a question with a file of its own and a container in compose.yaml."""
    add_a_question(template, "gateway")
    folder = template / "template/{{ with_gateway }}"
    write(folder / "gateway/Caddyfile", ":8080 {\n\treverse_proxy app:8000\n}\n")
    write(folder / "_parts/compose.yaml", GATEWAY_IN_COMPOSE)
    entry = "    {\n        'name': 'gateway',\n        'when': with_gateway,\n    },\n"
    replace(template / PARTS, r"^(    \{\n        'name': 'uvicorn',)$", rf"{entry}\1")


def ask_for_a_pipeline(template: Path) -> None:
    """Add a question with a file of its own."""
    add_a_question(template, "pipeline")
    write(
        template / "template/{{ with_pipeline }}/.woodpecker.yaml",
        "steps:\n  test:\n    image: python\n    commands: [uv run pytest]\n",
    )


def split_a_module(template: Path) -> None:
    """Move lines of app/factory.py into a module of their own."""
    replace(
        template / FACTORY,
        r"^    health\.add_probes\(app\)$",
        "    equip(app)",
    )
    imports = "from app import logs\nfrom app.equipment import equip"
    replace(template / FACTORY, r"^from app import health, logs$", imports)
    write(template / "template/{{ with_package }}/app/equipment.py", EQUIPMENT)


def add_a_section_to_pyproject(template: Path) -> None:
    section = "[tool.coverage.run]\nbranch = true\n\n"
    replace(template / "template/pyproject.toml.jinja", r"^(\[tool\.pytest\])$", rf"{section}\1")


def add_a_setting(template: Path) -> None:
    """Add a setting that every service has, with its variable in compose.yaml."""
    replace(
        template / RUNTIME_SETTINGS, r"^(    log_level: .*)$", r"\1\n    slow_request_seconds: float = 1.0"
    )
    line = "    SLOW_REQUEST_SECONDS: ${SLOW_REQUEST_SECONDS:-1}"
    replace(template / "template/compose.yaml.jinja", r"^(    LOG_LEVEL: .*)$", rf"\1\n{line}")


def move_the_default_python(template: Path) -> None:
    default, other = values("python_version")[:2]
    replace(
        template / "copier.yml",
        rf'^(python_version:\n  type: str\n  help: .*\n  default: )"{re.escape(default)}"$',
        rf'\1"{other}"',
    )


def add_a_file_to_options(template: Path) -> None:
    for fact in ("with_uvicorn", "with_granian"):
        write(
            template / f"template/{{{{ {fact} }}}}/SERVER.md",
            f"# The server\n\nThis is {fact[5:].title()}.\n",
        )


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def nothing(template: Path) -> None:
    """Leave everything but the pins as it is."""


@dataclass(frozen=True)
class Release:
    """A version of the template: what it changes, and whether it moves pins and floors to its date."""

    tag: str
    changes: str
    change: Callable[[Path], None] = nothing
    pins: bool = False
    floors: bool = False

    @property
    def moment(self) -> datetime:
        """Return the date of the release: they are a week apart, and the newest is as old as the lock."""
        return recorded_moment() - timedelta(weeks=len(YEAR) - 1 - YEAR.index(self))


YEAR = (
    Release("v1.0.0", "the first", first, pins=True, floors=True),
    Release("v1.0.1", "pins", pins=True),
    Release("v1.0.2", "a line in the Dockerfile", add_a_line_to_the_dockerfile),
    Release("v1.0.3", "uv of the image", move_uv_of_the_image),
    Release("v1.0.4", "pins", pins=True),
    Release("v1.1.0", "a question with a container", ask_for_a_gateway),
    Release("v1.2.0", "a question with a file", ask_for_a_pipeline),
    Release("v1.2.1", "pins", pins=True),
    Release("v1.3.0", "app/factory.py split", split_a_module),
    Release("v1.4.0", "pins and floors", pins=True, floors=True),
    Release("v1.4.1", "a section in pyproject.toml", add_a_section_to_pyproject),
    Release("v1.5.0", "a setting", add_a_setting),
    Release("v1.6.0", "the default Python", move_the_default_python),
    Release("v2.0.0", "a file for a server", add_a_file_to_options),
    Release("v2.0.1", "pins and floors", pins=True, floors=True),
)
FIRST, NEWEST = YEAR[0], YEAR[-1]


def template_of_a_year(folder: Path, *services: Answers) -> Path:
    """Make a repository with a tag for each release of the year, with the locks of these services or all."""
    services = services or (DEFAULT, SERVERS, PIP)
    template = owners.template_alone(folder / "copier-fastapi")
    draft = folder / "draft"
    shutil.copytree(template, draft, ignore=shutil.ignore_patterns(".git"))
    # Locking waits for the index most of the time, so all dates are locked at once.
    with ThreadPoolExecutor(8) as pool:
        moments = {release: release.moment for release in YEAR if release.floors}
        newest = dict(zip(moments, pool.map(newest_versions, moments.values()), strict=True))

        def change(repository: Path, release: Release) -> None:
            release.change(repository)
            if release in newest:
                set_floors(repository, newest[release])

        locks: dict[Release, list[Future[list[str]]]] = {}
        for release in YEAR:
            change(draft, release)
            locks[release] = [
                pool.submit(made_locks, project_of(draft, answers), answers, release.moment)
                for answers in services
                if release.pins
            ]
        for release in YEAR:
            change(template, release)
            for answers, made in zip(services, locks[release], strict=False):
                render_locks(template, answers, made.result())
            commit(template, f"{release.tag}: {release.changes}")
            git(template, "tag", release.tag)
    return owners.packed(template)
