"""Which locked packages an offered Python has to build for itself, read off the names of the locked files."""

from collections.abc import Iterable, Iterator, Mapping

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename

# Where services run and are written: a glibc no newer than Debian 12 has, the oldest macOS that Apple mends.
_GLIBC = 36
_MACOS = (14, 0)


def packages_without_wheel(
    python_version: str, requirements: Iterable[str], wheels: Mapping[str, set[str]]
) -> set[str]:
    """The packages that one of the platforms installs for this Python but finds no wheel of.

    `requirements` are pinned and may have markers; `wheels` are file names by package.
    """
    missing: set[str] = set()
    pinned = [Requirement(requirement) for requirement in requirements]
    for tags, environment in _platforms(python_version):
        for requirement in pinned:
            name = canonicalize_name(requirement.name)
            if requirement.marker and not requirement.marker.evaluate(environment):
                continue
            if not any(parse_wheel_filename(wheel)[3] & tags for wheel in wheels.get(name, ())):
                missing.add(name)
    return missing


def _platforms(python_version: str) -> Iterator[tuple[set[Tag], dict[str, str]]]:
    major, minor = map(int, python_version.split("."))
    python = {
        "python_version": python_version,
        "python_full_version": f"{python_version}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "implementation_version": f"{python_version}.0",
        "os_name": "posix",
        "extra": "",
    }
    for machine in ("x86_64", "aarch64"):
        names = [f"manylinux_2_{minor_glibc}_{machine}" for minor_glibc in range(_GLIBC, 4, -1)]
        names += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
        linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
        yield _tags((major, minor), names), {**python, **linux}
    macos = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}
    yield _tags((major, minor), list(mac_platforms(_MACOS, "arm64"))), {**python, **macos}


def _tags(python: tuple[int, int], platforms: list[str]) -> set[Tag]:
    interpreter = f"cp{python[0]}{python[1]}"
    return {*cpython_tags(python, platforms=platforms), *compatible_tags(python, interpreter, platforms)}
