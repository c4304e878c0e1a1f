"""Tests the job that publishes two services as examples with each release of the template."""

from pathlib import Path

import pytest

from harness import owners
from harness.clones import commit, git, run
from harness.matrix import ROOT
from harness.workflows import Runner, why_no_gh

pytestmark = [
    pytest.mark.update,
    pytest.mark.skipif(bool(why_no_gh()), reason=why_no_gh()),
]


def published(template: Path, folder: Path, address: str, remote: Path, tag: str) -> None:
    """Run the job for a release."""
    github = Runner(
        template, folder / tag, "unused", {"github.repository": "you/template", "github.token": "token"}
    )
    (folder / tag).mkdir()
    settings = folder / tag / "settings"
    settings.write_text(f'[url "{remote}"]\n\tinsteadOf = {address}.git\n\tinsteadOf = {address}\n')
    github.environment = {
        "GH_HOST": "github.com",
        "GIT_CONFIG_GLOBAL": str(settings),
        "GITHUB_REF_NAME": tag,
        # Copier keeps what it has cloned from an address.
        "UV_CACHE_DIR": run("uv", "cache", "dir", cwd=folder).stdout.strip(),
        "XDG_CACHE_HOME": str(folder / tag),
        "GITHUB_SERVER_URL": "https://github.com",
    }
    github.run("release.yml", "examples")


def test_each_release_is_a_commit_with_two_services(tmp_path: Path, light_git: None) -> None:
    template = owners.template_alone(tmp_path / "copier-fastapi")
    workflow = template / ".github/workflows/release.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text((ROOT / ".github/workflows/release.yml").read_text())
    commit(template, "The workflow")
    git(template, "tag", "v1.0.0")
    address = "https://github.com/you/template"
    published(template, tmp_path, address, template, "v1.0.0")
    published_first = git(template, "rev-parse", "examples")
    dockerfile = template / "template/Dockerfile.jinja"
    owners.replace(dockerfile, "^STOPSIGNAL SIGTERM$", "ENV A=1\nSTOPSIGNAL SIGTERM")
    commit(template, "Second")
    git(template, "tag", "v1.1.0")
    published(template, tmp_path, address, template, "v1.1.0")
    assert git(template, "log", "--format=%s", "examples").split() == ["v1.1.0", "v1.0.0"]
    changed = git(template, "diff", "--name-only", published_first.strip(), "examples").split()
    assert changed == [
        f"{name}/{file}"
        for name in ("default", "postgresql")
        for file in (".copier-answers.yml", "Dockerfile")
    ]
    answers = git(template, "show", "examples:postgresql/.copier-answers.yml")
    assert f"_src_path: {address}" in answers
    assert "database: postgresql" in answers
