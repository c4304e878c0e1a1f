"""Tests that the notes of a release are its section of CHANGELOG.md."""

import subprocess
import sys

import pytest

from harness.matrix import ROOT

CHANGELOG = """# Changelog

## Unreleased

## v1.1.0 - 2026-12-01

### Added

- New. After you update: nothing.

## v1.0.0 - 2026-11-30

- First.
"""


def release_notes(version: str, changelog: str) -> subprocess.CompletedProcess[str]:
    code = "import release_notes, sys; print(release_notes.notes(sys.argv[2], sys.argv[1]), end='')"
    return subprocess.run(
        [sys.executable, "-c", code, version, changelog], cwd=ROOT / "scripts", capture_output=True, text=True
    )


def test_the_notes_are_the_section_of_the_version() -> None:
    assert release_notes("v1.1.0", CHANGELOG).stdout == "### Added\n\n- New. After you update: nothing.\n"
    assert release_notes("v1.0.0", CHANGELOG).stdout == "- First.\n"


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("v2.0.0", "CHANGELOG.md has no section v2.0.0"),
        ("v1.0", "v1.0 is no version"),
        ("nightly", "nightly is no version"),
        ("Unreleased", "Unreleased is no version"),
    ],
)
def test_a_tag_without_notes_is_refused_with_a_sentence(version: str, sentence: str) -> None:
    done = release_notes(version, CHANGELOG)
    assert done.returncode != 0
    assert sentence in done.stderr
