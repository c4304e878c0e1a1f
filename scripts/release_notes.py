"""Print what CHANGELOG.md says about a version, for the notes of its release: `release_notes.py v1.0.0`."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"
VERSION = re.compile(r"v\d+\.\d+\.\d+(rc\d+)?")


def notes(changelog: str, version: str) -> str:
    """Return the section of a version. Raises ValueError if it is no version, or has no section."""
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version} is no version: tag v1.2.3, or v1.2.3rc1 for a prerelease.")
    for section in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        if title.split()[:1] == [version]:
            return text.strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no section {version}: move the entries under Unreleased to it.")


if __name__ == "__main__":
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1]), end="")
    except ValueError as error:
        sys.exit(str(error))
