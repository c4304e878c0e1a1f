"""Answers the page's requests with the real Copier. Runs in Pyodide, and in any other Python."""

import difflib
import io
import re
import shlex
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from copier._main import Worker
from copier._template import Template
from copier._user_data import AnswersMap, Question
from pygments import lex
from pygments.lexers import get_lexer_for_filename
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from playground.compiled_once import compile_each_source_once

Answers = dict[str, Any]

# Characters of the longest file whose tokens are told apart: the lock is longer, and takes seconds.
HIGHLIGHTED = 60_000
# What Copier writes before a sentence, where the page shows the sentence beside its question.
WHERE = re.compile(r"^(Validation error for question|Invalid choice for) '\w+': ")
# What is said of an answer that Python can't read as a type. Python's own sentence is for programmers.
UNREADABLE = {"int": "a whole number, in digits"}


class File(NamedTuple):
    """Holds a rendered file, and whether it can be executed."""

    content: bytes
    executable: bool


Tree = dict[str, File]


@dataclass(frozen=True)
class Source:
    """Says where the template is, and which commit of which address a service remembers for its updates.

    `ref` is the commit that the command asks for, or "" where Copier takes it unasked.
    """

    folder: Path
    url: str
    commit: str
    ref: str


class _Worker(Worker):
    """Renders from a plain folder, and remembers where the template really is."""

    source: Any = None

    def _answers_to_remember(self) -> Mapping[str, Any]:
        answers = {**super()._answers_to_remember()}
        answers["_src_path"] = self.source.url
        if self.source.commit:
            answers["_commit"] = self.source.commit
        return answers


def unpack(archive: bytes, folder: str) -> None:
    """Write the files of a zip into a folder, with their modes."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        for member in files.infolist():
            Path(files.extract(member, folder)).chmod(member.external_attr >> 16)


class Playground:
    """Holds one set of answers, what it renders to, and what the answers before it rendered to."""

    def __init__(self, folder: str, url: str, commit: str, ref: str = "") -> None:
        compile_each_source_once()
        self.source = Source(Path(folder), url, commit, ref)
        # Has read the configuration, which takes as long as the questions.
        self.template: Template | None = None
        self.tree: Tree = {}
        self.before: Tree = {}
        self.name = ""

    def answer(self, given: Answers) -> dict[str, Any]:
        """Take answers, and return the questions as they are now, the files, and the command.

        A wrong answer has a `problem` at its question, and the files stay as they were.
        """
        with tempfile.TemporaryDirectory() as parent:
            questions, asked = self._questions(given, Path(parent))
            problem = next((question["problem"] for question in questions if question["problem"]), "")
            if not problem:
                self.name = asked["project_name"]
                rendered = self._render(asked, Path(parent, self.name))
                self.before, self.tree = self.tree or rendered, rendered
        return {
            "questions": questions,
            "problem": problem,
            "files": self.files(),
            "command": self.command(questions),
        }

    def _worker(self, answers: Answers, destination: Path) -> Worker:
        worker = _Worker(
            src_path=str(self.source.folder),
            # Of a clone, Copier would take the newest tag.
            vcs_ref="HEAD",
            dst_path=destination,
            data=answers,
            defaults=True,
            quiet=True,
        )
        worker.source = self.source
        if self.template:
            worker.template = self.template
        elif not worker.template.vcs:
            # A clone is removed with its worker.
            self.template = worker.template
        return worker

    def compile_all(self) -> None:
        """Have every template compiled, also those that no answer has needed yet."""
        with tempfile.TemporaryDirectory() as parent, self._worker({}, Path(parent)) as worker:
            for name in worker.jinja_env.list_templates(extensions=["jinja"]):
                worker.jinja_env.get_template(name)

    def _render(self, answers: Answers, destination: Path) -> Tree:
        with self._worker(answers, destination) as worker:
            worker.run_copy()
        paths = sorted(path for path in destination.rglob("*") if path.is_file())
        return {
            path.relative_to(destination).as_posix(): File(
                path.read_bytes(), bool(path.stat().st_mode & 0o100)
            )
            for path in paths
        }

    def _questions(self, given: Answers, parent: Path) -> tuple[list[dict[str, Any]], Answers]:
        """Return each question with its value, its choices and what is wrong, and the answers to take."""
        described: list[dict[str, Any]] = []
        taken: Answers = {}
        # The folder has the name of the service, which is the default for it.
        destination = parent / "my-service"
        with self._worker(dict(given), destination) as worker:
            worker.answers = AnswersMap(init=worker.data, metadata=worker.template.metadata)
            for name, details in worker.template.questions_data.items():
                # Without what was given, which templates see too.
                worker.data = worker.answers.init = {k: v for k, v in worker.data.items() if k != name}
                question = self._question(worker, name, details)
                default = question.get_default()
                if details.get("when") is False:
                    worker.answers.hide(name)
                    worker.answers.user[name] = default
                    continue
                asked = question.get_when()
                value, problem = default, ""
                if not asked:
                    worker.answers.hide(name)
                elif name in given:
                    worker.data = worker.answers.init = worker.data | {name: given[name]}
                    question = self._question(worker, name, details)
                    value, problem = self._checked(question, given[name])
                    if not problem:
                        taken[name] = value
                worker.answers.user[name] = default if problem else value
                label, _, hint = question.get_message().strip().partition("\n")
                described.append(
                    {
                        "name": name,
                        "label": label,
                        "hint": hint,
                        "type": question.get_type_name(),
                        "asked": asked,
                        "default": default,
                        "value": value,
                        "problem": problem,
                        "choices": [
                            {"value": choice.value, "label": choice.title, "refusal": choice.disabled or ""}
                            for choice in question._formatted_choices
                        ],
                    }
                )
        taken.setdefault("project_name", described[0]["value"])
        return described, taken

    def _question(self, worker: Worker, name: str, details: dict[str, Any]) -> Question:
        context = worker._render_context()
        return Question(
            answers=worker.answers, context=context, jinja_env=worker.jinja_env, var_name=name, **details
        )

    def _checked(self, question: Question, answer: Any) -> tuple[Any, str]:
        """Return the parsed answer, and the sentence of the validator that refuses it, or ""."""
        try:
            parsed = question.parse_answer(answer)
        except ValueError as error:
            problem = WHERE.sub("", str(error))
            return answer, problem if question.choices else UNREADABLE.get(question.get_type_name(), problem)
        try:
            question.validate_answer(parsed)
        except ValueError as error:
            return answer, WHERE.sub("", str(error))
        return parsed, ""

    # What is shown

    def files(self) -> list[dict[str, Any]]:
        """Return the files of both sets of answers by path, with the number of lines that came and went."""
        return [
            {"path": path, "change": self._change(path), **self._counts(path)}
            for path in sorted(self.tree.keys() | self.before.keys(), key=_folders_last)
        ]

    def _change(self, path: str) -> str:
        if path not in self.tree:
            return "removed"
        if path not in self.before:
            return "added"
        return "" if self.tree[path] == self.before[path] else "changed"

    def _counts(self, path: str) -> dict[str, int]:
        if not self._change(path):
            return {"added": 0, "removed": 0}
        added = removed = 0
        for tag, i1, i2, j1, j2 in self._operations(path):
            if tag != "equal":
                removed += i2 - i1
                added += j2 - j1
        return {"added": added, "removed": removed}

    def _operations(self, path: str) -> Sequence[tuple[str, int, int, int, int]]:
        before, now = _lines(self.before, path), _lines(self.tree, path)
        return difflib.SequenceMatcher(None, before, now, autojunk=False).get_opcodes()

    def show(self, path: str) -> list[dict[str, Any]]:
        """Return the lines of a file: its numbers before and now, the change, and tokens with their class."""
        before, now = _tokens(self.before, path), _tokens(self.tree, path)
        shown: list[dict[str, Any]] = []
        for tag, i1, i2, j1, j2 in self._operations(path):
            if tag == "equal":
                shown += [
                    {"before": i + 1, "now": j + 1, "change": "", "tokens": now[j]}
                    for i, j in zip(range(i1, i2), range(j1, j2), strict=True)
                ]
                continue
            shown += [
                {"before": i + 1, "now": 0, "change": "removed", "tokens": before[i]} for i in range(i1, i2)
            ]
            shown += [{"before": 0, "now": j + 1, "change": "added", "tokens": now[j]} for j in range(j1, j2)]
        return shown

    # What is taken away

    def command(self, questions: list[dict[str, Any]]) -> str:
        """Return the command that renders the same service on any machine."""
        ref = [f"--vcs-ref {self.source.ref}"] if self.source.ref else []
        options = [
            f"--data {shlex.quote('{name}={value}'.format(**question))}"
            for question in questions[1:]
            if question["asked"] and question["value"] != question["default"]
        ]
        name = shlex.quote(str(questions[0]["value"]))
        return " ".join(["uvx copier copy --defaults", *ref, *options, self.source.url, name])

    def restore(self, archive: bytes) -> None:
        """Take an archive for what the answers before rendered to, which saves to render it."""
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            for member in files.infolist():
                name, _, path = member.filename.partition("/")
                self.name = name
                self.tree[path] = File(files.read(member), bool(member.external_attr >> 16 & 0o100))

    def archive(self) -> bytes:
        """Return a zip of the files in a folder with the service's name."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, file in self.tree.items():
                member = zipfile.ZipInfo(f"{self.name}/{path}", (2026, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (0o100755 if file.executable else 0o100644) << 16
                archive.writestr(member, file.content)
        return stream.getvalue()


def _folders_last(path: str) -> list[tuple[bool, str]]:
    """Return a key that sorts a folder's own files after its folders, as editors do."""
    *folders, name = path.split("/")
    return [*((False, folder) for folder in folders), (True, name)]


def _lines(tree: Tree, path: str) -> list[str]:
    return tree[path].content.decode().splitlines(keepends=True) if path in tree else []


def _tokens(tree: Tree, path: str) -> list[list[tuple[str, str]]]:
    """Return the tokens of each line, as a class of Pygments' style sheets and a text."""
    text = "".join(_lines(tree, path))
    if not text:
        return []
    plain = [[("", line)] for line in text.split("\n")]
    try:
        lexer = get_lexer_for_filename(path.rpartition("/")[2], stripnl=False, ensurenl=False)
    except (ClassNotFound, ImportError):
        # A language of which the page has no module.
        return plain
    if len(text) > HIGHLIGHTED:
        return plain
    lines: list[list[tuple[str, str]]] = [[]]
    for kind, value in lex(text, lexer):
        first, *others = value.split("\n")
        lines[-1].append((STANDARD_TYPES.get(kind, ""), first))
        lines += [[(STANDARD_TYPES.get(kind, ""), other)] for other in others]
    return [[token for token in line if token[1]] for line in lines]
