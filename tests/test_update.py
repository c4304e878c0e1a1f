"""`copier update` is a promise: from every commit, to every answer, on services that people have changed."""

import itertools
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness import owners, running
from harness.clones import commit, git, run
from harness.containers import Container, build, docker, unique
from harness.matrix import MATRIX, ROOT, Answers, combinations, covering, label, refusal, values
from harness.owners import files, live_in, lost_lines
from tests.test_docs import blocks, page

pytestmark = pytest.mark.update

# How many older commits stand for the rest, unless --all-commits asks for each.
SAMPLED = 4


@pytest.fixture(scope="session", autouse=True)
def light_git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with owners.light_git(tmp_path_factory.mktemp("no-hooks")):
        yield


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one commit with the working tree's template."""
    return owners.template_alone(tmp_path_factory.mktemp("alone") / "copier-fastapi")


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository whose newest commit is the working tree's template."""
    return owners.template_with_history(tmp_path_factory.mktemp("history") / "copier-fastapi")


# From older commits


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "updated" not in metafunc.fixturenames:
        return
    if why := owners.why_no_history():
        metafunc.parametrize(
            "updated", [pytest.param(None, marks=pytest.mark.skip(reason=why))], indirect=True
        )
        return
    commits = owners.commits_that_render_anew()
    if not metafunc.config.getoption("all_commits"):
        commits = owners.spread(commits, SAMPLED)
    # Each commit with the default answers and, in turn, with those of a set in which all pairs meet.
    others = itertools.cycle(covering())
    lives = [(ref, answers) for ref in commits for answers in ({}, next(others))]
    parameters = [
        pytest.param(life, id=f"{life[0]}-{label(life[1])}", marks=pytest.mark.xdist_group(f"{life}"))
        for life in lives
    ]
    metafunc.parametrize("updated", parameters, indirect=True, scope="module")


@dataclass
class Updated:
    """A service before and after its update, and what the template rendered for it then and now."""

    service: Path
    answers: Answers
    then: owners.Files
    before: owners.Files
    after: owners.Files
    now: owners.Files
    written: dict[str, list[bytes]]

    @property
    def deleted(self) -> set[str]:
        """What the owner deleted."""
        return self.then.keys() - self.before.keys()

    def changed_by_owner(self, name: str) -> bool:
        return self.before.get(name) != self.then.get(name)

    def changed_by_template(self, name: str) -> bool:
        return self.now.get(name) != self.then.get(name)


@pytest.fixture(scope="module")
def updated(
    request: pytest.FixtureRequest, history: Path, tmp_path_factory: pytest.TempPathFactory
) -> Updated:
    """A service copied from an older commit, lived in, and updated to the working tree's template."""
    ref, answers = request.param
    folder = tmp_path_factory.mktemp("updated")
    answers = {"project_name": "orders-api", **offered_then(history, ref, answers)}
    service = owners.own(owners.copy(history, folder / "orders-api", ref, **answers))
    then = files(service)
    written = live_in(service)
    before = files(service)
    owners.update(service)
    now = files(owners.copy(history, folder / "now", "HEAD", **answers))
    return Updated(service, answers, then, before, files(service), now, written)


def offered_then(history: Path, ref: str, answers: Answers) -> Answers:
    """Of these answers, those to questions and with choices that the commit had."""
    questions = yaml.safe_load(git(history, "show", f"{ref}:copier.yml"))
    return {
        name: answer
        for name, answer in answers.items()
        if name in questions and f"'{answer}'" in repr(questions[name].get("choices", f"'{answer}'"))
    }


def test_no_line_of_the_owner_is_lost(updated: Updated) -> None:
    assert lost_lines(updated.written, updated.after) == {}


def test_what_the_owner_deleted_stays_deleted(updated: Updated) -> None:
    assert updated.deleted
    assert updated.deleted & updated.after.keys() == set()


def test_what_only_the_template_changed_is_as_in_a_new_copy(updated: Updated) -> None:
    for name in updated.now.keys() | updated.then.keys():
        if not updated.changed_by_owner(name):
            assert updated.after.get(name) == updated.now.get(name), name


def test_what_only_the_owner_changed_is_untouched(updated: Updated) -> None:
    for name, text in updated.before.items():
        if not updated.changed_by_template(name) and name != owners.ANSWERS_FILE:
            assert updated.after.get(name) == text, name


def test_a_conflict_is_where_both_changed_a_file_and_git_knows_it(updated: Updated) -> None:
    conflicts = owners.conflicts(updated.service)
    assert owners.with_markers(updated.service) == conflicts
    for name in conflicts:
        assert updated.changed_by_owner(name), name
        assert updated.changed_by_template(name), name


def test_every_file_of_an_older_commit_still_has_its_place(updated: Updated) -> None:
    assert updated.then.keys() - updated.now.keys() == set()


def test_an_update_leaves_no_file_that_nobody_made(updated: Updated) -> None:
    assert updated.after.keys() <= updated.before.keys() | updated.now.keys()


def test_a_service_that_nobody_edited_is_as_a_new_copy(
    updated: Updated, history: Path, tmp_path: Path
) -> None:
    service = tmp_path / "orders-api"
    for name, text in updated.then.items():
        (service / name).parent.mkdir(parents=True, exist_ok=True)
        (service / name).write_bytes(text)
    owners.own(service)
    owners.update(service)
    assert files(service) == updated.now


def test_a_sample_of_commits_has_the_first_and_the_newest() -> None:
    assert owners.spread("abcdefghij", 4) == ["a", "d", "g", "j"]
    assert owners.spread("abc", 4) == ["a", "b", "c"]


# To other answers


@dataclass(frozen=True)
class Change:
    """One answer that becomes another, beside answers that go with both."""

    question: str
    old: Any
    new: Any
    others: tuple[tuple[str, Any], ...]

    @property
    def before(self) -> Answers:
        return {"project_name": "orders-api", **dict(self.others), self.question: self.old}

    @property
    def after(self) -> Answers:
        return self.before | {self.question: self.new}

    def __str__(self) -> str:
        return f"{self.question}-{self.old}-{self.new}"


def changes() -> Iterator[Change]:
    """Every question and every ordered pair of its choices."""
    for question in MATRIX:
        rest = [name for name in MATRIX if name != question]
        for old, new in itertools.permutations(values(question), 2):
            others = next(
                answers
                for answers in combinations(*rest)
                if not refusal(answers | {question: old}) and not refusal(answers | {question: new})
            )
            yield Change(question, old, new, tuple(others.items()))


@pytest.fixture(scope="session")
def copied(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with these answers in git; each set of answers is rendered once."""
    rendered: dict[str, Path] = {}

    def copied(answers: Answers) -> Path:
        key = label(answers)
        if key not in rendered:
            folder = tmp_path_factory.mktemp("copied") / "orders-api"
            rendered[key] = owners.own(owners.copy(repository, folder, **answers))
        return rendered[key]

    return copied


CHANGES = [
    pytest.param(change, id=str(change), marks=pytest.mark.xdist_group(str(change))) for change in changes()
]


@pytest.mark.parametrize("change", CHANGES)
def test_another_answer_makes_what_a_new_copy_with_it_is(copied: Any, tmp_path: Path, change: Change) -> None:
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    owners.update(service, **{change.question: change.new})
    assert files(service) == files(copied(change.after))
    assert git(service, "ls-files", "--unmerged") == ""


@pytest.mark.parametrize("change", CHANGES)
def test_another_answer_keeps_what_the_owner_wrote(copied: Any, tmp_path: Path, change: Change) -> None:
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    written = live_in(service)
    owners.update(service, **{change.question: change.new})
    lost = lost_lines(written, files(service))
    # What the new answer has no place for is deleted: the message before the update says so.
    assert lost.keys() <= files(copied(change.before)).keys() - files(copied(change.after)).keys()
    assert lost.keys() <= set(owners.deleted(service))
    assert owners.with_markers(service) == owners.conflicts(service)


# On the command line


@pytest.fixture
def copier_fastapi(repository: Path, tmp_path: Path) -> Path:
    """A repository of the template that the test may change."""
    return shutil.copytree(repository, tmp_path / "copier-fastapi", symlinks=True)


def start(template: Path, service: Path, ref: str | None = None, **answers: Any) -> Path:
    """A service in git, as its owner begins it."""
    return owners.own(owners.copy(template, service, ref, project_name="orders-api", **answers))


def move_on(template: Path, text: str = "# new in the template") -> None:
    """The template's maintainers commit something that every service gets."""
    file = template / "template/.editorconfig"
    file.write_text(f"{file.read_text()}{text}\n")
    commit(template, text)


def is_new(service: Path, text: str = "# new in the template") -> bool:
    return text in (service / ".editorconfig").read_text()


def copier_update(service: Path, *options: str) -> CompletedProcess[str]:
    return run("copier", "update", "--defaults", *options, cwd=service)


def page_section(title: str) -> list[tuple[str, str]]:
    """The blocks below a heading of the page on updates, up to the next heading."""
    text = page("docs/updating.md")
    assert f"# {title}\n" in text, title
    return blocks(re.split(r"^##+ ", text.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0])


def follow(block: str, service: Path, template: Path) -> CompletedProcess[str]:
    """Type a block of the page; <COMMIT> is the template's first, from which services here are copied."""
    script = block.replace("<URL>", str(template))
    if "<COMMIT>" in script:
        script = script.replace("<COMMIT>", git(template, "rev-list", "--max-parents=0", "HEAD").strip())
    return run("bash", "-ec", script, cwd=service)


def shell(title: str) -> list[str]:
    return [block for language, block in page_section(title) if language == "shell"]


@pytest.mark.parametrize("package_manager", values("package_manager"))
def test_the_messages_say_what_is_at_risk_and_what_to_do(
    copier_fastapi: Path, tmp_path: Path, package_manager: str
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", package_manager=package_manager)
    done = copier_update(service)
    before, _, after = done.stderr.partition("template version")
    assert "is deleted, with what you changed in it" in before
    assert "git diff --diff-filter=D --stat" in before
    assert "orders-api is updated. Before you commit:" in after
    locks = {"uv": ["uv.lock"], "pip": ["requirements.txt", "requirements-dev.txt"]}[package_manager]
    assert all((service / lock).exists() for lock in locks)
    assert f"git checkout --theirs -- {' '.join(locks)}\n" in after
    assert ("uv lock --refresh" in after) == (package_manager == "uv")
    assert ("uv pip compile" in after) == (package_manager == "pip")


def test_a_deleted_files_edits_are_recovered_as_the_page_says(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", layout="single-file")
    live_in(service, [owners.add_a_route])
    edited = (service / "main.py").read_bytes()
    change, recover = shell("Change an answer")
    done = follow(change, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert not (service / "main.py").exists()
    done = follow(recover, service, copier_fastapi)
    assert " main.py " in done.stdout
    assert (service / "main.py").read_bytes() == edited


@pytest.mark.parametrize(
    ("recorded", "changed"),
    [("server=fastapi", "python_version=3.15"), ("python_version=3.15", "server=fastapi")],
)
def test_an_answer_that_cannot_go_with_a_recorded_one_is_refused_and_nothing_changes(
    copier_fastapi: Path, tmp_path: Path, recorded: str, changed: str
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", **dict([recorded.split("=")]))
    before = files(service)
    done = copier_update(service, "--data", changed)
    assert done.returncode == 1
    [(_, printed)] = [block for block in page_section("Change an answer") if block[0] == "text"]
    assert done.stderr.strip().endswith(printed.strip().partition(":  ")[2])
    assert files(service) == before


def test_both_answers_at_once_are_taken(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", server="fastapi")
    done = copier_update(service, "--data", "python_version=3.15", "--data", "server=uvicorn")
    assert done.returncode == 0, done.stderr
    assert (service / ".python-version").read_text() == "3.15\n"


def test_a_single_file_gets_a_database_only_as_a_package(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", layout="single-file")
    before = files(service)
    add, add_and_split = shell("Add a database")
    refused = follow(add, service, copier_fastapi)
    assert refused.returncode == 1
    [(_, printed)] = [block for block in page_section("Add a database") if block[0] == "text"]
    assert refused.stderr.strip().endswith(printed.strip())
    assert files(service) == before
    done = follow(add_and_split, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert (service / "app" / "database.py").exists()
    assert owners.deleted(service) == ["logging.json", "logs.py", "main.py"]


def test_a_service_with_a_database_becomes_no_single_file_without_a_word(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", database="sqlite")
    before = files(service)
    refused = copier_update(service, "--data", "layout=single-file")
    assert refused.returncode == 1
    assert "a database or a cache needs the layout package" in refused.stderr
    assert files(service) == before


@pytest.mark.parametrize("edited", [True, False])
def test_a_database_conflicts_with_endpoints_that_were_changed_and_with_nothing_else(
    copier_fastapi: Path, tmp_path: Path, edited: bool
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    if edited:
        owners.replace(service / "app/items.py", "q=q", "q=q and q.upper()")
        owners.replace(service / "tests/test_items.py", "somequery", "SOMEQUERY")
        commit(service, "Ours")
    add, _ = shell("Add a database")
    done = follow(add, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert owners.conflicts(service) == ({"app/items.py", "tests/test_items.py"} if edited else set())


def test_a_file_that_the_template_renames_is_deleted_with_its_edits_as_the_message_says(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    """Why no rendered file may be renamed; and that what is lost can be noticed here."""
    service = start(copier_fastapi, tmp_path / "orders-api")
    (service / ".editorconfig").write_text("ours = true\n")
    commit(service, "Ours")
    git(copier_fastapi, "mv", "template/.editorconfig", "template/editor.config")
    commit(copier_fastapi, "Rename")
    owners.update(service)
    assert lost_lines({".editorconfig": [b"ours = true"]}, files(service)) == {
        ".editorconfig": [b"ours = true"]
    }
    assert owners.deleted(service) == [".editorconfig"]
    git(service, "checkout", "HEAD", "--", ".editorconfig")
    assert (service / ".editorconfig").read_text() == "ours = true\n"


# Bad situations: what each leads to is on the page


def relative(template: Path, service: Path) -> None:
    start(template, service)
    owners.replace(service / owners.ANSWERS_FILE, "^_src_path: .*$", "_src_path: ../copier-fastapi-of-old")
    commit(service, "The path of an older version")


def dirty_template(template: Path, service: Path) -> None:
    owners.replace(template / "template/.editorconfig", "^root = true$", "# not committed\nroot = true")
    with pytest.warns(UserWarning, match="Dirty template changes included automatically"):
        start(template, service)
    git(template, "checkout", "--quiet", ".")


def template_without_git(template: Path, service: Path) -> None:
    plain = shutil.copytree(template, template.parent / "plain", ignore=shutil.ignore_patterns(".git"))
    start(plain, service)


def template_out_of_git(template: Path, service: Path) -> None:
    start(template, service)
    shutil.rmtree(template / ".git")


def removed_answers(template: Path, service: Path) -> None:
    start(template, service)
    (service / owners.ANSWERS_FILE).unlink()
    commit(service, "No answers")
    (service / "README.md").write_text("Ours.\n")
    commit(service, "And life goes on")


def service_without_git(template: Path, service: Path) -> None:
    start(template, service)
    shutil.rmtree(service / ".git")


def uncommitted_changes(template: Path, service: Path) -> None:
    start(template, service)
    (service / "README.md").write_text("Ours.\n")


def newer_than_released(template: Path, service: Path) -> None:
    git(template, "tag", "v1.0.0")
    move_on(template, "# after the release")
    start(template, service, "HEAD")


SITUATIONS = {
    "The answers file is gone": removed_answers,
    "The service has uncommitted changes": uncommitted_changes,
    "The service is not in git": service_without_git,
    "The template is no longer where it was": relative,
    "The template had uncommitted changes when it was copied": dirty_template,
    "The template was copied from a folder that is not in git": template_without_git,
    "The template is no longer in git": template_out_of_git,
    "The service is newer than the newest release": newer_than_released,
}


def test_the_page_has_every_bad_situation() -> None:
    titles = re.findall(r"^### (.*)$", page("docs/updating.md"), re.MULTILINE)
    assert {title for title in titles if title != "An answer was changed by hand"} == SITUATIONS.keys()


@pytest.mark.parametrize("title", SITUATIONS)
def test_copier_stops_with_the_sentence_of_the_page_and_changes_nothing(
    copier_fastapi: Path, tmp_path: Path, title: str
) -> None:
    service = tmp_path / "orders-api"
    SITUATIONS[title](copier_fastapi, service)
    before = files(service)
    done = copier_update(service)
    assert done.returncode == 1
    [printed] = [text.strip() for language, text in page_section(title) if language == "text"]
    sentence = re.sub(r"<[A-Z]+>", r"\\S+", re.escape(printed))
    assert re.fullmatch(sentence, done.stderr.strip().splitlines()[-1]), done.stderr
    assert files(service) == before


@pytest.mark.parametrize("title", [title for title in SITUATIONS if shell(title)])
def test_what_the_page_says_gets_the_service_updated(
    copier_fastapi: Path, tmp_path: Path, title: str
) -> None:
    service = tmp_path / "orders-api"
    SITUATIONS[title](copier_fastapi, service)
    move_on(copier_fastapi)
    readme = (service / "README.md").read_text()
    [block] = shell(title)
    done = follow(block, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert is_new(service)
    assert owners.conflicts(service) == set()
    assert (service / "README.md").read_text() == readme


@pytest.mark.parametrize("absolute", [False, True])
def test_the_path_of_a_clone_may_be_relative_when_it_is_copied(
    copier_fastapi: Path, tmp_path: Path, absolute: bool
) -> None:
    source = copier_fastapi if absolute else copier_fastapi.name
    done = run("copier", "copy", "--defaults", str(source), "orders-api", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    owners.own(tmp_path / "orders-api")
    move_on(copier_fastapi)
    assert copier_update(tmp_path / "orders-api").returncode == 0
    assert is_new(tmp_path / "orders-api")


def test_an_address_is_recorded_as_it_was_given(copier_fastapi: Path, tmp_path: Path) -> None:
    address = f"git+{copier_fastapi.as_uri()}"
    done = run("copier", "copy", "--defaults", address, "orders-api", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"_src_path: {address}\n" in (tmp_path / "orders-api" / owners.ANSWERS_FILE).read_text()


@pytest.fixture
def changed_by_hand(copier_fastapi: Path, tmp_path: Path) -> Path:
    service = start(copier_fastapi, tmp_path / "orders-api")
    owners.replace(service / owners.ANSWERS_FILE, "^server: .*$", "server: gunicorn")
    commit(service, "Another server")
    return service


def test_an_answer_changed_by_hand_makes_none_of_its_files(changed_by_hand: Path) -> None:
    assert copier_update(changed_by_hand).returncode == 0
    assert not (changed_by_hand / "gunicorn.conf.py").exists()


def test_an_answer_changed_by_hand_is_changed_again_as_the_page_says(
    changed_by_hand: Path, copier_fastapi: Path, tmp_path: Path
) -> None:
    [block] = shell("An answer was changed by hand")
    done = follow(block, changed_by_hand, copier_fastapi)
    assert done.returncode == 0, done.stderr
    new = owners.copy(copier_fastapi, tmp_path / "new", project_name="orders-api", server="gunicorn")
    assert files(changed_by_hand) == files(new)


# Conflicts


@pytest.fixture
def conflicting(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service whose update will conflict: its owner and the template changed the same line."""
    service = start(copier_fastapi, tmp_path / "orders-api")
    owners.replace(service / ".editorconfig", "^root = true$", "root = true  # ours")
    (service / "CODEOWNERS").write_text("ours\n")
    commit(service, "Ours")
    owners.replace(copier_fastapi / "template/.editorconfig", "^root = true$", "root = true  # theirs")
    (copier_fastapi / "template/CODEOWNERS").write_text("theirs\n")
    commit(copier_fastapi, "Theirs")
    return service


def test_a_conflict_keeps_both_sides_and_git_refuses_the_commit(conflicting: Path) -> None:
    assert copier_update(conflicting).returncode == 0
    assert owners.conflicts(conflicting) == {".editorconfig", "CODEOWNERS"}
    for name in (".editorconfig", "CODEOWNERS"):
        text = (conflicting / name).read_text()
        assert "ours" in text
        assert "theirs" in text
    assert run("git", "commit", "--message", "Too early", cwd=conflicting).returncode != 0


def test_the_scheduled_job_fails_on_a_conflict_and_names_the_files(
    conflicting: Path, copier_fastapi: Path
) -> None:
    [job] = shell("Update without anybody there")
    done = follow(job, conflicting, copier_fastapi)
    assert done.returncode != 0
    assert done.stdout.split() == [".editorconfig", "CODEOWNERS"]


def test_the_scheduled_job_asks_nothing_and_succeeds_without_a_conflict(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    [job] = shell("Update without anybody there")
    done = follow(job, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert is_new(service)


def test_check_update_says_with_its_exit_code_whether_there_is_anything_new(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    assert run("copier", "check-update", "--quiet", cwd=service).returncode == 0
    move_on(copier_fastapi)
    assert run("copier", "check-update", "--quiet", cwd=service).returncode == 2


def hook(service: Path) -> CompletedProcess[str]:
    """Run the hook on conflict markers as a hook runner does."""
    configuration = yaml.safe_load((service / ".pre-commit-config.yaml").read_text())
    [found] = [
        each for repo in configuration["repos"] for each in repo["hooks"] if each["id"] == "conflict-markers"
    ]
    assert (found["language"], found["pass_filenames"]) == ("system", False)
    return run(*shlex.split(found["entry"]), cwd=service)


def stage(service: Path) -> None:
    git(service, "add", "--all")


def stage_and_commit(service: Path) -> None:
    commit(service, "With markers")


@pytest.mark.parametrize("then", [lambda service: None, stage, stage_and_commit])
def test_the_hook_refuses_the_markers_of_an_update(conflicting: Path, then: Callable[[Path], None]) -> None:
    copier_update(conflicting)
    then(conflicting)
    done = hook(conflicting)
    assert done.returncode != 0
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {".editorconfig", "CODEOWNERS"}


def test_the_hook_passes_once_they_are_resolved(conflicting: Path) -> None:
    copier_update(conflicting)
    git(conflicting, "checkout", "--ours", "--", ".editorconfig", "CODEOWNERS")
    stage(conflicting)
    assert hook(conflicting).returncode == 0


def test_the_hook_passes_in_a_new_service_of_every_package_manager(repository: Path, tmp_path: Path) -> None:
    for package_manager in values("package_manager"):
        service = owners.copy(repository, tmp_path / package_manager, package_manager=package_manager)
        assert hook(owners.own(service)).returncode == 0


# Versions


def test_without_a_tag_the_newest_commit_is_taken(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    owners.update(service)
    assert is_new(service)


def test_with_a_tag_a_later_commit_waits_for_the_next_tag(copier_fastapi: Path, tmp_path: Path) -> None:
    git(copier_fastapi, "tag", "v1.0.0")
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    owners.update(service)
    assert not is_new(service)
    git(copier_fastapi, "tag", "v1.0.1")
    owners.update(service)
    assert is_new(service)


def test_a_later_commit_is_taken_when_it_is_asked_for(copier_fastapi: Path, tmp_path: Path) -> None:
    git(copier_fastapi, "tag", "v1.0.0")
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    done = copier_update(service, "--vcs-ref", "HEAD")
    assert done.returncode == 0, done.stderr
    assert is_new(service)


def test_a_service_from_before_the_first_tag_moves_to_it(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    git(copier_fastapi, "tag", "v1.0.0")
    owners.update(service)
    assert is_new(service)
    assert "_commit: v1.0.0\n" in (service / owners.ANSWERS_FILE).read_text()


def test_a_prerelease_is_taken_only_when_it_is_asked_for(copier_fastapi: Path, tmp_path: Path) -> None:
    git(copier_fastapi, "tag", "v1.0.0")
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    git(copier_fastapi, "tag", "v2.0.0rc1")
    owners.update(service)
    assert not is_new(service)
    assert copier_update(service, "--prereleases").returncode == 0
    assert is_new(service)


# Generated histories


# In tests of 25 each, so that processes share the work; four times as many with --all-commits.
HISTORIES = 100


@st.composite
def places(draw: st.DrawFn) -> tuple[float, float]:
    """A file and a line in it, as shares of all files and of all lines."""
    share = st.floats(0, 1, exclude_max=True)
    return draw(share), draw(share)


def write_lines(files: Sequence[Path], at: Sequence[tuple[float, float]], text: str) -> None:
    """Insert a line at each of these places."""
    for number, (file_share, line_share) in enumerate(at):
        file = files[int(file_share * len(files))]
        lines = file.read_text().splitlines(keepends=True)
        lines.insert(int(line_share * (len(lines) + 1)), f"# {text} {number}\n")
        file.write_text("".join(lines))


def change_lines(files: Sequence[Path], at: Sequence[tuple[float, float]]) -> None:
    """Change a line at each of these places, or remove it, unless a tag of Jinja's is in it."""
    for number, (file_share, line_share) in enumerate(at):
        file = files[int(file_share * len(files))]
        lines = file.read_text().splitlines(keepends=True)
        line = int(line_share * len(lines))
        if lines and not re.search(r"\{[{%#]|[%#}]\}", lines[line]):
            lines[line] = f"# changed {number}\n" if number % 2 else ""
            file.write_text("".join(lines))


def text_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and ".git" not in path.relative_to(folder).parts
        and path.name != owners.ANSWERS_FILE
    )


def histories(number: int, start_at: int) -> Any:
    """A test of this many generated histories; the same ones in each run that starts at the same number."""
    few_places = st.lists(places(), max_size=6)
    combination = st.sampled_from(list(combinations()))
    unhurried = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

    @seed(start_at)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        # A history takes seconds, so a failing one is shown as it was found.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=unhurried,
    )
    @given(
        answers=combination,
        new_answers=st.none() | combination,
        edits=st.lists(st.sampled_from(owners.EDITS), unique=True, max_size=4),
        ours=few_places,
        theirs=few_places,
        changed=few_places,
    )
    def history_of_a_service(
        repository: Path,
        folder: Path,
        answers: Answers,
        new_answers: Answers | None,
        edits: list[owners.Edit],
        ours: list[tuple[float, float]],
        theirs: list[tuple[float, float]],
        changed: list[tuple[float, float]],
    ) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            template = shutil.copytree(repository, Path(name, "copier-fastapi"), symlinks=True)
            service = start(template, Path(name, "orders-api"), **answers)
            copied = files(service)
            for edit in sorted(edits, key=owners.EDITS.index):
                edit(service)
            write_lines(text_files(service), ours, "ours")
            git(service, "add", "--all")
            git(service, "commit", "--quiet", "--allow-empty", "--message", "Ours")
            written = owners.added_lines(copied, files(service))
            change_lines(text_files(template / "template"), changed)
            write_lines(text_files(template / "template"), theirs, "theirs")
            git(template, "commit", "--quiet", "--allow-empty", "--all", "--message", "Theirs")

            owners.update(service, **(new_answers or {}))

            lost = lost_lines(written, files(service))
            # Only new answers delete files, and the message before the update says so.
            assert lost.keys() <= (set(owners.deleted(service)) if new_answers else set())
            assert owners.with_markers(service) == owners.conflicts(service)

    return history_of_a_service


@pytest.mark.parametrize("start_at", range(HISTORIES // 25))
def test_no_history_loses_a_line_of_the_owner(
    repository: Path, tmp_path: Path, request: pytest.FixtureRequest, start_at: int
) -> None:
    number = 100 if request.config.getoption("all_commits") else 25
    histories(number, start_at)(repository=repository, folder=tmp_path)


# With what the package index has


PYTHON = values("python_version")[0]
CHECKS = ("pytest", "ruff check", "ruff format --check", "mypy .")


@pytest.fixture
def newest_python() -> None:
    if missing := running.missing_python(PYTHON):
        pytest.skip(missing)


def lock_again(service: Path, package_manager: str) -> None:
    """What the page has an owner do after every update."""
    if package_manager == "uv":
        running.run("uv lock --refresh", service)
        return
    for name in ("requirements.txt", "requirements-dev.txt"):
        command = re.search(r"^# +(uv pip compile .*)$", (service / name).read_text(), re.MULTILINE)
        assert command, f"{name} does not say how it was made"
        running.run(command[1], service)


def resolve(service: Path) -> None:
    """Choose between the markers as an owner might: the template's lines, and one's own among them."""
    conflicts = owners.conflicts(service)
    for name in conflicts:
        side = "--ours" if name == "README.md" else "--theirs"
        git(service, "checkout", side, "--", name)
    if "pyproject.toml" in conflicts:
        owners.add_a_dependency(service)
        owners.change_a_pin(service)
    if "app/main.py" in conflicts:
        owners.include_the_route(service / "app/main.py")
        owners.exclude_the_example(service / "app/main.py")


def updated_and_locked(history: Path, service: Path, ref: str, package_manager: str) -> Path:
    """A service of an older commit, lived in, locked, updated, and repaired as the page says."""
    start(history, service, ref, package_manager=package_manager)
    live_in(service)
    if package_manager == "uv":
        running.run("uv lock", service)
        commit(service, "Lock")
    owners.update(service)
    resolve(service)
    lock_again(service, package_manager)
    commit(service, "Update from copier-fastapi")
    return service


def older_commits(*package_managers: str, number: int) -> list[Any]:
    if why := owners.why_no_history():
        return [pytest.param("", "", marks=pytest.mark.skip(reason=why))]
    commits = owners.spread(owners.commits_that_render_anew(), number)
    return [pytest.param(ref, manager) for ref in commits for manager in package_managers]


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize(("ref", "package_manager"), older_commits("uv", "pip", number=2))
def test_an_updated_service_passes_its_own_checks(
    history: Path, tmp_path: Path, ref: str, package_manager: str
) -> None:
    service = updated_and_locked(history, tmp_path / "orders-api", ref, package_manager)
    if package_manager == "uv":
        running.run("uv lock --check\nuv sync --locked --quiet", service)
    else:
        running.run(
            f"uv venv --quiet --python {PYTHON} .venv\n"
            "uv pip install --quiet --require-hashes -r requirements-dev.txt",
            service,
        )
    for check in CHECKS:
        running.run(check, service)


def first_with_a_dockerfile() -> list[Any]:
    for parameters in older_commits("uv", number=10**6):
        if parameters.marks or git(ROOT, "ls-tree", parameters.values[0], "template/Dockerfile.jinja"):
            return [parameters]
    raise AssertionError("no commit has a Dockerfile")


@pytest.mark.docker
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize(("ref", "package_manager"), first_with_a_dockerfile())
def test_the_image_of_an_updated_service_serves_the_owners_route(
    history: Path, tmp_path: Path, ref: str, package_manager: str
) -> None:
    service = updated_and_locked(history, tmp_path / "orders-api", ref, package_manager)
    tag = unique("updated")
    build(service, tag)
    try:
        with Container(tag) as container:
            container.wait_until_healthy()
            assert container.get("/orders/5").json() == {"number": 5}
            assert container.python("import os; print(os.environ['ORDERS_LIMIT'])") == "10"
    finally:
        docker("image", "rm", "--force", tag)


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_an_update_can_be_followed_on_the_page(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    for block in shell("Take what is new"):
        done = follow(block, service, copier_fastapi)
        assert done.returncode == 0, done.stderr
    assert is_new(service)
    assert git(service, "status", "--porcelain") == ""


@pytest.fixture
def conflicting_locks(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service whose owner limits a dependency of which the template has moved the version since."""
    pyproject = copier_fastapi / "template/pyproject.toml.jinja"
    [lock] = (copier_fastapi / "template").glob("*uv.lock*")
    newest = pyproject.read_text(), lock.read_text()
    owners.replace(pyproject, r'"pydantic-settings>=([\d.]+)"', r'"pydantic-settings>=\1.0"')
    owners.replace(lock, r'(name = "pydantic-settings", specifier = ">=[\d.]+)"', r'\1.0"')
    commit(copier_fastapi, "An older version")
    service = start(copier_fastapi, tmp_path / "orders-api")
    running.run("uv add --no-sync 'pydantic-settings<99' tenacity", service)
    commit(service, "Ours")
    pyproject.write_text(newest[0])
    lock.write_text(newest[1])
    commit(copier_fastapi, "A newer version")
    return service


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_a_conflict_in_the_lock_is_resolved_as_the_page_says(
    conflicting_locks: Path, copier_fastapi: Path
) -> None:
    service = conflicting_locks
    owners.update(service)
    show, repair = shell("Resolve a conflict")
    assert follow(show, service, copier_fastapi).stdout.split() == ["pyproject.toml", "uv.lock"]
    git(service, "checkout", "--ours", "--", "pyproject.toml")
    done = follow(repair, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    running.run("uv lock --check", service)
    assert 'name = "tenacity"' in (service / "uv.lock").read_text()
    assert hook(service).returncode == 0


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_prek_refuses_the_commit_of_markers_and_git_alone_does_not(conflicting: Path) -> None:
    running.run("uv sync --locked --quiet\nprek install", conflicting)
    copier_update(conflicting)
    git(conflicting, "add", "--all")
    refused = run("git", "commit", "--message", "With markers", cwd=conflicting)
    assert refused.returncode != 0
    assert "conflict markers" in refused.stderr
    assert "Failed" in refused.stderr
    git(conflicting, "commit", "--quiet", "--no-verify", "--message", "With markers")
    with pytest.raises(AssertionError, match=r"\.editorconfig:1:<<<<<<<"):
        running.run("prek run --all-files", conflicting)
