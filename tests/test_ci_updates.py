"""Tests the job that brings what is new in the template, on both forges, for services of three ages."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import owners
from harness.clones import commit, git
from harness.forge import Forge, forge
from harness.gitlab import GitLab, JobError, why_no_gitlab
from harness.variants import variants
from harness.workflows import Runner, StepError, why_no_gh

pytestmark = [pytest.mark.update, pytest.mark.project]

BRANCH = "update-from-the-template"
FORGES = variants(
    [
        pytest.param("github", marks=pytest.mark.skipif(bool(why_no_gh()), reason=why_no_gh())),
        pytest.param("gitlab", marks=pytest.mark.skipif(bool(why_no_gitlab()), reason=why_no_gitlab())),
    ]
)
# A file of the template that the second release deletes.
GONE = ".gitattributes"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, light_git: None) -> Path:
    """A clone of this repository with three releases."""
    if reason := owners.why_no_history():
        pytest.skip(reason)
    template = owners.template_with_history(tmp_path_factory.mktemp("history") / "copier-fastapi")
    git(template, "tag", "v1.0.0")
    (template / "template" / GONE).unlink()
    ci = template / "template/{{ with_github }}/.github/workflows/ci.yml.jinja"
    ci.write_text(ci.read_text().replace("timeout-minutes: 15", "timeout-minutes: 20"))
    commit(template, "Second")
    git(template, "tag", "v1.1.0")
    owners.replace(
        template / "template/Dockerfile.jinja", "^STOPSIGNAL SIGTERM$", "ENV A=1\nSTOPSIGNAL SIGTERM"
    )
    commit(template, "Third")
    git(template, "tag", "v1.2.0")
    return template


@pytest.fixture
def api() -> Iterator[Forge]:
    with forge() as found:
        yield found


def made(template: Path, folder: Path, tag: str, ci: str) -> Path:
    """Make a service from a release, and have its owner commit it."""
    return owners.own(owners.copy(template, folder / "orders-api", tag, project_name="orders-api", ci=ci))


def a_conflict(service: Path) -> None:
    """Change the line beside which the third release adds one."""
    owners.replace(service / "Dockerfile", "^STOPSIGNAL SIGTERM$", "STOPSIGNAL SIGINT")
    commit(service, "Stop otherwise")


def updated(service: Path, folder: Path, api: Forge, ci: str, **secrets: str) -> dict[str, str]:
    """Run the scheduled job, and return what was asked of the forge: title, body, whether it is a draft."""
    if ci == "gitlab":
        GitLab(service, folder / "runner", "unused").run("update", api=api.url, UPDATE_TOKEN="the token")
    else:
        github = github_runner(service, folder, api, **secrets)
        outputs = github.run("update.yml", "update")
        github.values |= {f"needs.update.outputs.{name}": value for name, value in outputs.items()}
        if outputs["state"] == "clean":
            # The job of the workflow that the job calls, on the branch.
            called = github.workflow("update.yml")["jobs"]["test"]
            assert called["uses"] == "$/.github/workflows/ci.yml"
            github.values["inputs.ref"] = called["with"]["ref"]
            github.run("ci.yml", "test")
            github.values["needs.test.result"] = "success"
        if outputs["state"] != "current":
            github.run("update.yml", "pull-request")
    if not api.written():
        return {}
    [call] = api.written()
    assert "the token" in "".join(call.headers.values())
    return sent(call.body)


def github_runner(service: Path, folder: Path, api: Forge, **secrets: str) -> Runner:
    return Runner(
        service,
        folder / "runner",
        "unused",
        {
            "github.head_ref": "",
            "github.ref_name": "main",
            "github.repository": "you/orders",
            "github.run_id": "1",
            "github.sha": git(service, "rev-parse", "HEAD").strip(),
            "github.token": "the token",
            "needs.update.result": "success",
            **{f"secrets.{name}": value for name, value in secrets.items()},
        },
        # The one host that gh asks without TLS.
        {"GH_HOST": "github.localhost", "HTTP_PROXY": api.url, "http_proxy": api.url},
    )


def sent(body: str) -> dict[str, str]:
    """Return the fields of a call as text, from JSON or a form."""
    if body.startswith("{"):
        return {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in json.loads(body).items()
        }
    parts = body.split(body.splitlines()[0])[1:-1]
    pairs = [part.strip("\r\n").partition("\r\n\r\n") for part in parts]
    return {head.partition('name="')[2].partition('"')[0]: text for head, _, text in pairs}


def branch(service: Path) -> list[str]:
    return git(service, "branch", "--list", BRANCH).split()


@pytest.mark.parametrize("ci", FORGES)
def test_a_service_of_the_newest_release_gets_no_request_to_merge(
    template: Path, tmp_path: Path, api: Forge, ci: str
) -> None:
    service = made(template, tmp_path, "v1.2.0", ci)
    assert updated(service, tmp_path, api, ci) == {}
    assert branch(service) == []


@pytest.mark.parametrize("ci", FORGES)
def test_a_clean_update_is_a_request_that_says_what_it_deletes(
    template: Path, tmp_path: Path, api: Forge, ci: str
) -> None:
    service = made(template, tmp_path, "v1.0.0", ci)
    owners.add_a_route(service)
    commit(service, "Add a route")
    request = updated(service, tmp_path, api, ci)
    text = request.get("body") or request["description"]
    assert request["title"] == "Update from the template"
    assert "v1.0.0 to v1.2.0" in text
    assert f"Deleted:\n\n- `{GONE}`" in text
    assert "resolved" not in text
    assert request.get("draft", "false") == "false"
    assert "ENV A=1" in git(service, "show", f"{BRANCH}:Dockerfile")
    assert git(service, "diff", "main", BRANCH, "--", "app") == "", "the owner's route is lost"


Asked = tuple[Path, dict[str, str]]
WithAConflict = Callable[[str, Path], Asked]


@pytest.fixture(scope="module")
def with_a_conflict(template: Path, tmp_path_factory: pytest.TempPathFactory) -> WithAConflict:
    """Return a service whose job met a conflict, in a folder, and what was asked of the forge."""
    made_once: dict[str, Asked] = {}

    def with_a_conflict(ci: str, folder: Path) -> Asked:
        if ci not in made_once:
            first = tmp_path_factory.mktemp("conflict")
            service = made(template, first, "v1.1.0", ci)
            a_conflict(service)
            with forge() as api:
                made_once[ci] = service, updated(service, first, api, ci)
        service, request = made_once[ci]
        return shutil.copytree(service, folder / service.name, symlinks=True), request

    return with_a_conflict


@pytest.mark.parametrize("ci", FORGES)
def test_a_conflict_is_a_draft_that_names_the_file(
    with_a_conflict: WithAConflict, tmp_path: Path, ci: str
) -> None:
    service, request = with_a_conflict(ci, tmp_path)
    assert "- `Dockerfile`" in (request.get("body") or request["description"])
    assert request.get("draft") == "true" or request["title"].startswith("Draft: ")
    assert "<<<<<<< before updating" in git(service, "show", f"{BRANCH}:Dockerfile")


@pytest.mark.parametrize("ci", FORGES)
def test_the_next_run_renews_the_request_that_is_open(
    with_a_conflict: WithAConflict, tmp_path: Path, api: Forge, ci: str
) -> None:
    service, _ = with_a_conflict(ci, tmp_path)
    first = git(service, "rev-parse", BRANCH)
    api.requests, api.calls = [{"number": 7, "iid": 7, "draft": True}], []
    updated(service, tmp_path, api, ci)
    [call] = [call for call in api.calls if call.method != "GET"]
    assert call.method in {"PATCH", "PUT"}
    assert call.path.endswith("/7")
    assert git(service, "rev-parse", BRANCH) != first


@pytest.mark.parametrize(
    "options", [("--message=Resolve",), ("--amend", "--no-edit")], ids=["new", "amended"]
)
@pytest.mark.parametrize("ci", FORGES)
def test_the_next_run_takes_no_commit_of_the_owner_from_the_branch(
    with_a_conflict: WithAConflict, tmp_path: Path, api: Forge, ci: str, options: tuple[str, ...]
) -> None:
    service, _ = with_a_conflict(ci, tmp_path)
    git(service, "worktree", "add", "--quiet", str(tmp_path / "branch"), BRANCH)
    (tmp_path / "branch" / "Dockerfile").write_text("FROM scratch\n")
    git(tmp_path / "branch", "commit", "--quiet", "--all", *options)
    git(service, "worktree", "remove", str(tmp_path / "branch"))
    with pytest.raises((StepError, JobError), match="has commits of somebody else"):
        updated(service, tmp_path, api, ci)
    assert git(service, "show", f"{BRANCH}:Dockerfile") == "FROM scratch\n"


needs_gh = pytest.mark.skipif(bool(why_no_gh()), reason=why_no_gh())


@needs_gh
def test_without_a_token_of_its_own_changes_of_workflows_are_left_to_the_owner(
    template: Path, tmp_path: Path, api: Forge
) -> None:
    service = made(template, tmp_path, "v1.0.0", "github")
    request = updated(service, tmp_path, api, "github")
    assert git(service, "diff", "--name-only", "main", BRANCH, "--", ".github/workflows") == ""
    assert "+    timeout-minutes: 20" in request["body"]


@needs_gh
def test_with_a_token_of_its_own_workflows_are_updated_too(
    template: Path, tmp_path: Path, api: Forge
) -> None:
    service = made(template, tmp_path, "v1.0.0", "github")
    request = updated(service, tmp_path, api, "github", UPDATE_TOKEN="the token")
    assert git(service, "diff", "--name-only", "main", BRANCH, "--", ".github/workflows").split() == [
        ".github/workflows/ci.yml"
    ]
    assert "by hand" not in request["body"]


@needs_gh
@pytest.mark.parametrize(("was_draft", "result"), [(True, "success"), (False, "skipped")])
def test_a_pull_request_whose_draft_state_is_wrong_makes_room_for_another(
    template: Path, tmp_path: Path, api: Forge, was_draft: bool, result: str
) -> None:
    api.requests = [{"number": 7, "draft": was_draft}]
    github = github_runner(made(template, tmp_path, "v1.2.0", "github"), tmp_path, api)
    github.values |= {"needs.update.outputs.state": "clean", "needs.test.result": result}
    github.run("update.yml", "pull-request")
    closed, opened = api.written()
    assert (closed.method, closed.path.rpartition("/")[2], sent(closed.body)["state"]) == (
        "PATCH",
        "7",
        "closed",
    )
    assert (opened.method, sent(opened.body)["draft"]) == ("POST", str(not was_draft).lower())


@needs_gh
def test_where_a_plan_has_no_drafts_the_pull_request_is_opened_all_the_same(
    template: Path, tmp_path: Path, api: Forge
) -> None:
    service = made(template, tmp_path, "v1.1.0", "github")
    a_conflict(service)
    api.without_drafts = True
    github = github_runner(service, tmp_path, api)
    outputs = github.run("update.yml", "update")
    github.values |= {f"needs.update.outputs.{name}": value for name, value in outputs.items()}
    github.run("update.yml", "pull-request")
    assert [sent(call.body)["draft"] for call in api.written()] == ["true", "false"]
