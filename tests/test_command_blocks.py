"""Tests that each block of commands on a page is run by a test, or has a reason why none runs it.

`KNOWN` says so for the pages of this repository, `OF_A_SERVICE` for those of a service, and `TARGETS` for
lists of make's targets. A page of docs/ without an entry is followed by tests/test_docs.py.
"""

import re
from pathlib import Path

import pytest

from harness.clones import ENVIRONMENT, clone, run, tracked
from harness.command_blocks import (
    SHELLS,
    By,
    Entry,
    Fenced,
    Known,
    NotRun,
    by,
    fenced,
    has_commands,
    key,
    make_targets,
    names_of_tests,
    programs,
    reads,
    texts,
)
from harness.matrix import ROOT, covering
from harness.pages import blocks, page
from tests.conftest import RenderTo

# What follows a page from its first block to its last.
FOLLOWED = by("tests/test_docs.py::test_a_page_can_be_followed")

ONE_SERVER = "tests/test_deploy_on_one_server.py::"
OPERATED = "tests/test_database_pages.py::"
IN_KIND = by("tests/test_kubernetes_cluster.py::test_the_page_leads_from_a_cluster_to_more_pods")
RECIPE = by(
    "tests/test_recipes.py::test_a_recipe_works_alone",
    "tests/test_recipes.py::test_every_step_of_a_recipe_is_taken_by_a_test",
)
FIRST_RELEASE = by(f"{ONE_SERVER}test_a_first_release_that_fails_says_that_nothing_serves")
NEXT_RELEASE = by(f"{ONE_SERVER}test_a_server_gets_its_first_release_the_next_and_the_one_before")
OF_NGINX = "tests/test_nginx.py::test_http_is_redirected_to_https_with_its_method_path_and_query"
RENEWED = "tests/test_nginx.py::test_a_renewed_certificate_is_served_after_the_command_of_the_page"
UPDATE = "tests/test_update_command.py::"
SITUATION = by("tests/test_update_situations.py::test_what_the_page_says_gets_the_service_updated")
ASKED = by("tests/test_docs.py::test_a_command_of_a_first_page_asks_and_takes_enter_for_every_answer")

# A page, or a folder of pages. An entry says what runs the blocks below a heading, or why nothing does.
KNOWN: dict[str, Known] = {
    "README.md": {"*": ASKED},
    "docs/index.md": {"*": ASKED},
    "docs/back-up-and-restore.md": {
        "Make a backup at once": by(f"{OPERATED}test_an_item_comes_back_from_a_backup"),
        "Keep copies elsewhere": by(f"{OPERATED}test_an_item_comes_back_on_a_new_server_from_a_copy"),
        "The restore drill": by(f"{OPERATED}test_an_item_comes_back_on_a_new_server_from_a_copy"),
        "Restore the database": by(f"{OPERATED}test_an_item_comes_back_from_a_backup"),
        "Restore on a new server": by(f"{OPERATED}test_an_item_comes_back_on_a_new_server_from_a_copy"),
    },
    "docs/change-a-password.md": {
        "*": by("tests/test_proxies.py::test_a_password_is_changed_and_no_request_is_lost"),
    },
    "docs/change-an-answer.md": {
        "Change an answer": by(
            f"{UPDATE}test_an_answer_is_changed_as_the_page_says",
            f"{UPDATE}test_other_deleted_files_are_listed_and_recovered_as_the_page_says",
        ),
        "Add a database": by(
            f"{UPDATE}test_a_database_conflicts_with_endpoints_that_were_changed_and_with_nothing_else"
        ),
        "Add manifests for Kubernetes": by(
            "tests/test_update_kubernetes.py::test_the_command_of_the_page_adds_manifests"
        ),
        "From a single file to a package": by(
            f"{UPDATE}test_a_single_file_gets_a_database_only_as_a_package"
        ),
    },
    "docs/ci.md": {
        "On GitHub, once": NotRun("asks GitHub about an image that its owner has published"),
        "Deploy": NotRun("signs in to a registry on a server of the owner's"),
        "Add a job": NotRun("takes the releases of that day; tests/test_ci_files.py checks the file"),
    },
    "docs/databases.md": {"Change a model": by(f"{OPERATED}test_a_model_is_changed_as_the_page_says")},
    "docs/deploy-on-one-server.md": {
        "Before the first release": FIRST_RELEASE,
        "Release": NEXT_RELEASE,
        "Go back": NEXT_RELEASE,
        "Every day": NEXT_RELEASE,
        "More than one container": by(
            "tests/test_three_containers.py::test_each_of_three_containers_gets_requests"
        ),
    },
    "docs/docker-swarm.md": {
        "Once": by("tests/test_docker_swarm.py::test_two_replicas_serve"),
        "Deploy": by(
            "tests/test_docker_swarm.py::test_a_release_and_the_way_back_lose_no_request",
            "tests/test_docker_swarm.py::"
            "test_a_release_that_never_gets_ready_is_rolled_back_and_loses_no_request",
        ),
    },
    "docs/first-resource.md": {
        "*": by("tests/test_first_resource.py::test_a_first_resource_is_written_as_the_page_says")
    },
    "docs/getting-started-postgresql.md": {
        "*": by(
            "tests/test_getting_started_postgresql.py::"
            "test_the_page_leads_from_an_empty_folder_to_https_to_a_second_release_and_back"
        )
    },
    "docs/kubernetes.md": {
        "A cluster on your machine": IN_KIND,
        "A request": IN_KIND,
        "A release": IN_KIND,
        "A rollback": IN_KIND,
        "A secret that changes": IN_KIND,
        "More pods": IN_KIND,
        "Your cluster": NotRun(
            "changes a cluster; tests/test_kubernetes_page.py makes the Secret without one"
        ),
    },
    "docs/observability.md": {
        "From nothing to a trace": by(
            "tests/test_observability_containers.py::test_the_profile_of_development_sends_to_its_collector"
        ),
        "Requests that the service makes": by(
            "tests/test_observability.py::test_a_request_that_the_service_makes_continues_the_trace"
        ),
    },
    "docs/operate-databases.md": {
        "Deploy": by(f"{OPERATED}test_a_release_answers_before_and_after_the_migration_of_the_next"),
        "A change while the service runs": by(
            f"{OPERATED}test_a_release_answers_before_and_after_the_migration_of_the_next"
        ),
    },
    "docs/playground.md": {
        "See every file before you copy | make playground": by(
            "tests/test_playground_browser.py::test_the_commands_of_the_page_build_and_serve_it"
        )
    },
    "docs/proxy.md": {
        "Move to a proxy": by(f"{ONE_SERVER}test_a_service_with_data_moves_to_a_proxy_and_keeps_its_rows"),
    },
    "docs/recipes": {"*": RECIPE},
    "docs/recipes/command.md": {
        "*": RECIPE,
        "In production": by(
            "tests/test_recipes.py::test_a_deployed_service_has_its_secret_and_runs_the_command"
        ),
    },
    "docs/recipes/nginx.md": {"In production": by(OF_NGINX, RENEWED)},
    "docs/releasing.md": {
        "Make a release": by("tests/test_update_versions.py::test_the_commands_of_the_page_make_a_release")
    },
    "docs/replace-the-example.md": {
        "Delete the endpoints": by(
            "tests/test_replace_the_example.py::"
            "test_a_service_without_the_endpoints_of_the_example_passes_its_checks"
        ),
        "Delete the table": by(
            "tests/test_replace_the_example.py::"
            "test_a_service_without_the_table_of_the_example_passes_its_checks"
        ),
        "A single file": by(
            "tests/test_replace_the_example.py::"
            "test_a_service_without_the_endpoints_of_the_example_passes_its_checks"
        ),
    },
    "docs/site.md": {
        "The site": by("tests/test_docs_site.py::test_the_commands_of_the_page_build_and_serve_it"),
        "Once the repository has an address": by(
            "tests/test_address.py::test_one_command_replaces_what_stands_for_the_address"
        ),
    },
    "docs/troubleshoot-updates.md": {
        "An answer was changed by hand": by(
            "tests/test_update_situations.py::"
            "test_an_answer_changed_by_hand_is_changed_again_as_the_page_says"
        ),
        "The answers file is gone": SITUATION,
        "The service has uncommitted changes": SITUATION,
        "The service is not in git": SITUATION,
        "The template is no longer where it was": SITUATION,
        "The template had uncommitted changes when it was copied": SITUATION,
        "The template was copied from a folder that is not in git": SITUATION,
        "The service is newer than the newest release": SITUATION,
    },
    "docs/updating.md": {
        "Take what is new": by("tests/test_update_installed.py::test_an_update_can_be_followed_on_the_page"),
        "Resolve a conflict": by(
            "tests/test_update_installed.py::test_a_conflict_in_the_lock_is_resolved_as_the_page_says"
        ),
        "Update without anybody there": by(
            "tests/test_update_conflicts.py::"
            "test_the_scheduled_job_asks_nothing_and_succeeds_without_a_conflict"
        ),
    },
}

# The pages of a service, for all answers together.
OF_A_SERVICE: dict[str, Known] = {
    "README.md": {
        "*": by("tests/test_docker.py::test_an_edit_is_served_and_nothing_is_written_to_the_folder")
    },
    "DEVELOPMENT.md": {
        "Run": by(
            "tests/test_servers.py::test_the_commands_of_the_readme_work",
            "tests/test_servers.py::test_the_commands_of_the_readme_work_with_data",
        ),
        "Test": by(
            "tests/test_servers.py::test_the_commands_of_the_readme_work",
            "tests/test_servers.py::test_the_commands_of_the_readme_work_with_data",
        ),
        "Migrate": by("tests/test_example.py::test_two_resources_can_take_the_place_of_the_example"),
        "Update": by("tests/test_update_installed.py::test_a_service_is_updated_as_its_own_page_says"),
    },
    "DEPLOYMENT.md": {
        "Once on the server | echo ": by(
            f"{ONE_SERVER}test_the_page_and_the_service_have_the_same_commands",
            f"{ONE_SERVER}test_a_first_release_that_fails_says_that_nothing_serves",
        ),
        "Once on the server": by(f"{ONE_SERVER}test_a_service_with_data_moves_to_a_proxy_and_keeps_its_rows"),
        "Deploy | export TAG=": by(
            f"{ONE_SERVER}test_a_service_with_data_moves_to_a_proxy_and_keeps_its_rows",
            f"{OPERATED}test_a_release_whose_migration_fails_leaves_the_one_before_serving",
        ),
        "Deploy | TAG=$(git rev-parse HEAD~1) docker": by(
            f"{OPERATED}test_a_release_answers_before_and_after_the_migration_of_the_next"
        ),
        "Deploy | TAG=$(git rev-parse HEAD)\n": by(
            f"{ONE_SERVER}test_the_page_and_the_service_have_the_same_commands",
            f"{ONE_SERVER}test_a_server_gets_its_first_release_the_next_and_the_one_before",
        ),
        "Deploy | deploy/release --rollback": by(
            f"{ONE_SERVER}test_the_page_and_the_service_have_the_same_commands",
            f"{ONE_SERVER}test_a_server_gets_its_first_release_the_next_and_the_one_before",
        ),
        "Deploy | docker compose --file compose.prod.yaml up": by(
            "tests/test_proxies.py::test_the_command_of_the_page_starts_the_proxy_again"
        ),
        "Deploy | ENVIRONMENT=production": by("tests/test_servers.py::test_the_root_says_hello"),
        "On Kubernetes": NotRun(
            "needs a cluster. tests/test_kubernetes_page.py has kubectl take each command without one, and "
            "tests/test_kubernetes_cluster.py runs their like on docs/kubernetes.md, where there is kind"
        ),
        "Back up": by(
            "tests/test_releases.py::test_the_page_restores_the_newest_backup_and_brings_the_release_back",
            f"{OPERATED}test_the_commands_of_the_services_own_page_are_those_of_the_page_on_operation",
        ),
    },
}

# The targets in the lists of README.md and CONTRIBUTING.md: what each runs, and who runs that.
TARGETS: dict[str, tuple[str, Entry]] = {
    "docs": (
        "scripts/build_docs.py",
        by("tests/test_docs_site.py::test_the_commands_of_the_page_build_and_serve_it"),
    ),
    "address": (
        "scripts/set_address.py",
        by("tests/test_address.py::test_one_command_replaces_what_stands_for_the_address"),
    ),
    "playground": (
        "scripts/build_playground.py",
        by("tests/test_playground_browser.py::test_the_commands_of_the_page_build_and_serve_it"),
    ),
    "recording": (
        "scripts/record_questions.py",
        by("tests/test_recording.py::test_the_recording_is_what_copier_shows_now"),
    ),
    "render": (
        "copier copy --defaults",
        by("tests/test_command_blocks.py::test_make_render_takes_answers"),
    ),
    "demo": (
        "scripts/demo.py",
        by("tests/test_demo.py::test_the_demo_serves_a_tested_service_until_ctrl_c"),
    ),
    "test": ("pytest --numprocesses auto --dist loadgroup", by(".ci/run")),
    "test-fast": ('pytest --numprocesses auto --dist loadgroup -m "not', by(".github/workflows/ci.yml")),
    "test-all": (
        "pytest --numprocesses auto --dist loadgroup --variants",
        by(".github/workflows/upgrade-lock.yml"),
    ),
    "test-updates": (
        "--all-commits",
        NotRun("updates services of every commit: `make test` has the same tests update some of them"),
    ),
    "lint": ("ruff check", by(".ci/run")),
    "lock": ("python -m lock", by(".github/workflows/upgrade-lock.yml")),
    "bench": (
        "python -m benchmarks ",
        NotRun("needs an idle machine: tests/test_performance.py checks what needs no clock"),
    ),
    "faults": (
        "python -m benchmarks.faults",
        NotRun("counts what is lost over minutes: tests/test_outages.py takes parts away too"),
    ),
    "releases": (
        "python -m benchmarks.releases",
        NotRun("releases for minutes under load: tests/test_releases.py releases under less"),
    ),
}


# This repository's pages

PAGES = [name for name in tracked() if name.endswith(".md") and not name.startswith(("template/", "tests/"))]
FENCED = {name: fenced(page(name)) for name in PAGES}
PROGRAMS = programs(block for found in FENCED.values() for block in found)


def known_of(name: str) -> Known:
    """Return what is known of a page's blocks, which may be known of its folder."""
    return KNOWN.get(name, KNOWN.get(str(Path(name).parent), {}))


def commands_of(name: str) -> list[Fenced]:
    """Return the blocks with commands of a page."""
    return [block for block in FENCED[name] if has_commands(block, PROGRAMS)]


def followed_by_test_docs(name: str) -> bool:
    """Tell whether tests/test_docs.py follows a page of docs/ from its first block to its last."""
    known = known_of(name)
    shells = [block for block in commands_of(name) if block.language in SHELLS]
    by_default = name.startswith("docs/") and not any(key(known, block) for block in shells)
    return bool(shells) and (by_default or known.get("*") == FOLLOWED)


def unknown(name: str) -> list[Fenced]:
    """Return the blocks with commands of a page which no test runs, and which have no reason."""
    runs = {text for _, text in blocks(page(name))} if followed_by_test_docs(name) else set()
    return [
        block
        for block in commands_of(name)
        if not (block.language in SHELLS and block.text in runs)
        if not (targets := make_targets(block)) or set(targets) - TARGETS.keys()
        if not key(known_of(name), block)
    ]


@pytest.mark.parametrize("name", [name for name in PAGES if commands_of(name)])
def test_each_command_block_of_a_page_is_run_by_a_test_or_has_a_reason(name: str) -> None:
    assert [str(block) for block in unknown(name)] == []


def test_each_entry_of_a_page_is_about_a_block_that_it_has() -> None:
    used = {
        (place, key(known, block))
        for name in PAGES
        for place, known in KNOWN.items()
        if known is known_of(name)
        for block in commands_of(name)
    }
    assert {(place, name) for place, known in KNOWN.items() for name in known} - used == set()


@pytest.mark.parametrize("name", KNOWN)
def test_the_test_that_runs_a_block_reads_its_page_and_its_heading(name: str) -> None:
    pages = [found for found in PAGES if known_of(found) is KNOWN[name]]
    for title, entry in KNOWN[name].items():
        for test in entry.tests if isinstance(entry, By) and entry != FOLLOWED else ():
            file, _, function = test.partition("::")
            assert function in names_of_tests(file), test
            heading = title.partition(" | ")[0]
            # The title of a page names all of it.
            headings = {
                found: "*" if page(found).startswith(f"# {heading}\n") else heading for found in pages
            }
            assert any(reads(file, found, below) for found, below in headings.items()), (test, title)


# The pages of services


@pytest.fixture(scope="module")
def of_services(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[Fenced]]:
    """The blocks with commands of services' pages, by the page: the services have every pair of answers."""
    found: dict[str, set[Fenced]] = {}
    for answers in covering():
        service = render_to(tmp_path_factory.mktemp("services") / "orders-api", **answers)
        for file in service.rglob("*.md"):
            blocks = [block for block in fenced(file.read_text()) if has_commands(block, PROGRAMS)]
            found.setdefault(file.relative_to(service).as_posix(), set()).update(blocks)
    return found


@pytest.mark.xdist_group("command-blocks")
def test_each_command_block_of_a_service_is_run_by_a_test_or_has_a_reason(
    of_services: dict[str, set[Fenced]],
) -> None:
    assert [
        f"{name}: {block}"
        for name, blocks in of_services.items()
        for block in blocks
        if not key(OF_A_SERVICE.get(name, {}), block)
    ] == []


@pytest.mark.xdist_group("command-blocks")
def test_each_entry_of_a_service_is_about_a_block_that_it_has(of_services: dict[str, set[Fenced]]) -> None:
    used = {
        (name, key(OF_A_SERVICE.get(name, {}), block))
        for name, blocks in of_services.items()
        for block in blocks
    }
    assert {(place, name) for place, known in OF_A_SERVICE.items() for name in known} - used == set()


@pytest.mark.parametrize("name", OF_A_SERVICE)
def test_the_test_that_runs_a_block_of_a_service_reads_its_heading(name: str) -> None:
    for title, entry in OF_A_SERVICE[name].items():
        for test in entry.tests if isinstance(entry, By) else ():
            file, _, function = test.partition("::")
            assert function in names_of_tests(file), test
            heading = title.partition(" | ")[0]
            assert (name if heading == "*" else heading) in texts(file), (test, title)


# Targets of make


def test_each_target_of_the_lists_is_known_and_no_other() -> None:
    named = {target for name in PAGES for block in commands_of(name) for target in make_targets(block)}
    assert named == TARGETS.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_what_is_run(target: str) -> None:
    command, entry = TARGETS[target]
    shown = run("make", "--dry-run", "--old-file=.venv/installed", target, cwd=ROOT)
    assert command in shown.stdout, shown.stderr
    for test in entry.tests if isinstance(entry, By) else ():
        file, _, function = test.partition("::")
        if function:
            assert function in names_of_tests(file), test
        else:
            assert re.search(rf"\bmake (?:[a-z-]+ )*{target}(?![\w-])", page(file)), test


@pytest.mark.update
def test_make_render_takes_answers(tmp_path: Path) -> None:
    repository = clone(tmp_path / "copier-fastapi")
    answers = "ANSWERS=server=granian workers=4"
    done = run("make", "--old-file=.venv/installed", "render", answers, cwd=repository, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    written = (repository / "build/orders-api/.copier-answers.yml").read_text()
    assert "server: granian\n" in written
    assert "workers: 4\n" in written


# Reasons


def test_a_reason_names_only_files_that_exist() -> None:
    entries = [entry for known in [*KNOWN.values(), *OF_A_SERVICE.values()] for entry in known.values()]
    entries += [entry for _, entry in TARGETS.values()]
    reasons = [entry.reason for entry in entries if isinstance(entry, NotRun)]
    assert len(reasons) > 5
    for reason in reasons:
        for file in re.findall(r"\b(?:tests|docs)/[\w./-]+\.(?:py|md)", reason):
            assert (ROOT / file).exists(), reason


# What is a block of commands

PAGE = """
# Title

Text.

=== "uv"

    ```shell
    uv sync
    ```

## Section

```text
$ make demo
```

```text
0 3 * * * TAG=1 uv run python -m app.cleanup
```

```yaml
steps:
  - run: uv sync
```

### Below

```text
5 rows
uv 0.13.9 ran
```

```yaml
mail:
  image: mail
```

~~~
uv lock
~~~

## Another

```python
# no heading
uv = 1
```
"""


def test_a_block_of_commands_is_told_from_files_and_output() -> None:
    found = fenced(PAGE)
    assert [block.headings for block in found] == [
        ("Title",),
        *[("Title", "Section")] * 3,
        *[("Title", "Section", "Below")] * 3,
        ("Title", "Another"),
    ]
    known = programs(found)
    assert known >= {"uv", "make"}
    assert [block.text.split()[0] for block in found if has_commands(block, known)] == [
        "uv",
        "$",
        "0",
        "steps:",
        "uv",
    ]
    assert [make_targets(block) for block in found[:3]] == [[], ["demo"], []]


def test_the_entry_of_a_block_is_the_most_exact_one() -> None:
    one, two, cron, _, _, _, last, _ = fenced(PAGE)
    known = dict.fromkeys(["Section | 0 3", "Section", "*"], NotRun("never"))
    assert [key(known, block) for block in (one, two, cron, last)] == [
        "*",
        "Section",
        "Section | 0 3",
        "Section",
    ]
    # Only shell blocks are run without a sentence of their own.
    assert key({"*": NotRun("never")}, last) == ""
