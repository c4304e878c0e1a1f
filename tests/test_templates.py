"""Checks the rules for the template's own files, so that they stay readable and right."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from jinja2.meta import find_undeclared_variables

from harness.clones import tracked
from harness.matrix import (
    CONFIGURATION,
    DEFAULTS,
    ENVIRONMENT,
    FACTS,
    QUESTIONS,
    ROOT,
    choices,
    combinations,
    facts,
)

# Like Copier's, but every character stays in its place, so that lines can be counted.
JINJA = jinja2.Environment(keep_trailing_newline=True)


# `make lock` writes these files, and nobody reads them.
GENERATED = re.compile(r"^(includes/generated/|template/.*uv\.lock)")
SOURCES = [name for name in tracked("template", "includes") if not GENERATED.match(name)]
# The files that Copier renders as templates, and the files that those include.
HANDWRITTEN = [name for name in SOURCES if name.endswith(".jinja") or "/_parts/" in name]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


# Literals


def strings_in(value: Any) -> Iterator[str]:
    """Yield every text of the configuration, because Copier renders any of them."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for part in value:
            yield from strings_in(part)
    elif isinstance(value, str):
        yield value


def undeclared_literals(source: str) -> list[str]:
    """Return the literals that are compared with an answer and are none of its choices."""
    tree = JINJA.parse(source)
    pairs: list[tuple[nodes.Node, list[nodes.Expr]]] = []
    for comparison in tree.find_all(nodes.Compare):
        for operand in comparison.ops:
            literals = (
                operand.expr.items if isinstance(operand.expr, nodes.List | nodes.Tuple) else [operand.expr]
            )
            pairs += [(comparison.expr, literals), (operand.expr, [comparison.expr])]
    for lookup in tree.find_all(nodes.Getitem):
        if isinstance(lookup.node, nodes.Dict):
            pairs.append((lookup.arg, [pair.key for pair in lookup.node.items]))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and isinstance(call.node.node, nodes.Dict) and call.args:
            pairs.append((call.args[0], [pair.key for pair in call.node.node.items]))
    for test in tree.find_all(nodes.Test):
        for argument in test.args or []:
            literals = argument.items if isinstance(argument, nodes.List | nodes.Tuple) else [argument]
            pairs.append((test.node, literals))
    return [
        f"{name.name} has no choice {literal.value!r}"
        for name, literals in pairs
        if isinstance(name, nodes.Name) and "choices" in QUESTIONS.get(name.name, {})
        for literal in literals
        if isinstance(literal, nodes.Const) and literal.value not in choices(name.name)
    ]


def test_an_answer_is_compared_only_with_its_choices() -> None:
    sources = {name: text_of(name) for name in [*HANDWRITTEN, *tracked("includes")]}
    sources |= {f"the file name {name}": name for name in tracked("template")}
    sources |= {f"copier.yml: {text}": text for text in strings_in(CONFIGURATION)}
    wrong = {name: undeclared_literals(source) for name, source in sources.items()}
    assert {name: found for name, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "snippet",
    [
        "{% if server == 'gunicron' %}{% endif %}",
        "{% if 'gunicron' == server %}{% endif %}",
        "{{ 'a' if server != 'gunicron' else 'b' }}",
        "{% if server in ['uvicorn', 'gunicron'] %}{% endif %}",
        "{% if server not in ('gunicron',) %}{% endif %}",
        "{% if layout == 'package' and server == 'gunicron' %}{% endif %}",
        "{{ {'uvicorn': 1, 'gunicron': 2}[server] }}",
        "{{ {'gunicron': 2}.get(server) }}",
        "{% if server is in ['gunicron'] %}{% endif %}",
        "{% if server is eq 'gunicron' %}{% endif %}",
        "{% for package in ['a'] if server == 'gunicron' %}{% endfor %}",
        "{% if python_version == 3.14 %}{% endif %}",
    ],
)
def test_a_literal_that_is_no_choice_is_noticed(snippet: str) -> None:
    assert len(undeclared_literals(snippet)) == 1


@pytest.mark.parametrize(
    "snippet",
    [
        "{% if server in ['uvicorn', 'gunicorn'] and workers > 1 %}{% endif %}",
        "{{ {'uvicorn': 1, 'granian': 2}[server] }}",
        "{% if package == 'gunicron' %}{% endif %}",
        "{% if python_version < '3.12' %}{% endif %}",
        "server == 'gunicron'",
    ],
)
def test_choices_and_other_names_are_let_through(snippet: str) -> None:
    assert undeclared_literals(snippet) == []


# Lines


def lines_of(source: str) -> tuple[set[int], set[int]]:
    """Return the numbers of the lines with block tags, and of those with text or expressions."""
    tags: set[int] = set()
    text: set[int] = set()
    within = ""
    for number, token, value in JINJA.lex(source):
        if token in {"block_begin", "variable_begin", "comment_begin"}:
            within = token
        lines = range(number, number + value.count("\n") + 1)
        if token in {"raw_begin", "raw_end"} or within == "block_begin":
            # The text after the end of a tag is not part of the tag.
            tags.update([number] if token in {"block_end", "raw_begin", "raw_end"} else lines)
        elif within == "variable_begin":
            text.add(number)
        elif token == "data":
            text.update(line for line, part in zip(lines, value.split("\n"), strict=True) if part.strip())
        if token in {"block_end", "variable_end", "comment_end"}:
            within = ""
    return tags, text


def shared_lines(source: str) -> list[int]:
    """Return the lines that hold a block tag and something else too."""
    tags, text = lines_of(source)
    return sorted(tags & text)


def tags_in(source: str) -> int:
    """Count the lines with blocks, without the imports from includes/, which hide nothing."""
    imports = len(re.findall(r"^{% from .* %}$", source, re.MULTILINE))
    return len(lines_of(source)[0]) - imports


def share_of_tags(source: str) -> float:
    """Return the share of a file's lines that hold blocks."""
    return tags_in(source) / max(1, source.count("\n"))


def test_blocks_own_their_lines() -> None:
    found = {name: shared_lines(text_of(name)) for name in HANDWRITTEN}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("snippet", "lines"),
    [
        ("a\nname: {% if workers %}a{% endif %}\n", [2]),
        ("{% if workers %} a\n{% endif %}\n", [1]),
        ("{% if workers %}\na\n{% endif %}{{ workers }}\n", [3]),
        ("{% set x = [1,\n 2] %} a\n", [2]),
        ("{% if workers %}\nname: {{ 'a' if workers else 'b' }}\n{% endif %}\n", []),
        ("{% set x = [1,\n  2] %}\na\n", []),
        ("{% for x in [1] %}{% if x %}\na\n{% endif %}{% endfor %}\n", []),
        ("{% raw %}\na {% if x %} b\n{% endraw %}\n", []),
        ("{# why #}\n{%- endif %}\n".replace("{%- endif %}", "{%- set x = 1 %}"), []),
    ],
)
def test_a_line_shared_by_a_block_and_text_is_noticed(snippet: str, lines: list[int]) -> None:
    assert shared_lines(snippet) == lines


# Lists in which nearly every line depends on an answer. They read best as they are.
LISTS = {
    "template/.dockerignore.jinja",
    "template/Dockerfile.jinja",
    "template/compose.prod.yaml.jinja",
    "template/compose.yaml.jinja",
    "template/pyproject.toml.jinja",
}

# A file that joins the parts of a service may have this many lines with tags, however short it is.
TAGS_OF_A_JOIN = 12


def too_noisy(name: str, source: str) -> bool:
    """Tell whether too many of a file's lines are tags to read it as what it renders."""
    if name in LISTS:
        return share_of_tags(source) > 0.5
    limit = 0.1 if name.removesuffix(".jinja").endswith(".py") else 0.2
    return share_of_tags(source) > limit and tags_in(source) > TAGS_OF_A_JOIN


def test_a_file_is_mostly_what_it_renders() -> None:
    templates = [name for name in HANDWRITTEN if name.startswith("template/")]
    noisy = {
        name: round(share_of_tags(text_of(name)), 2) for name in templates if too_noisy(name, text_of(name))
    }
    assert noisy == {}


def test_a_file_of_too_many_tags_is_noticed() -> None:
    blocks = "{% if workers %}\na\n{% endif %}\n" * 7
    assert too_noisy("template/main.py.jinja", blocks + "a\n" * 118)
    assert not too_noisy("template/main.py.jinja", blocks + "a\n" * 119)
    assert too_noisy("template/README.md.jinja", blocks + "a\n" * 48)
    assert not too_noisy("template/README.md.jinja", blocks + "a\n" * 49)


def test_a_short_file_may_join_the_parts_of_a_service() -> None:
    block = "{% if workers %}\na\n{% endif %}\n"
    assert not too_noisy("template/main.py.jinja", block * 6)
    assert too_noisy("template/main.py.jinja", block * 7)


# Files


def has_answers(source: str) -> bool:
    """Tell whether what a file renders depends on answers, itself or by what it imports."""
    tree = JINJA.parse(source)
    others = tree.find_all((nodes.Import, nodes.FromImport, nodes.Include))
    return any(getattr(node, "with_context", False) for node in others) or bool(
        find_undeclared_variables(tree)
    )


def test_only_a_file_with_answers_is_a_template() -> None:
    without = {
        name
        for name in HANDWRITTEN
        if name.startswith("template/")
        and name.endswith(".jinja")
        and not has_answers(text_of(name).replace("|", "~"))
    }
    assert without == set()


def test_a_template_without_answers_is_noticed() -> None:
    assert not has_answers("{# only a comment #}\n{% set a = 1 %}{{ a }}\n")
    assert not has_answers("{% from 'a' import b %}{{ b }}\n")
    assert has_answers("{{ workers }}\n")
    assert has_answers("{% from 'a' import b with context %}{{ b }}\n")


# Folders: one capability, one folder

# Each of these has several sources with little in common, of which one is rendered.
ONE_OF = {
    "app/engine.py",
    "app/items.py",
    "deploy/backup/engine.sh",
    "tests/empty_database.py",
    "tests/test_items.py",
}


def rendered_name(name: str) -> str:
    """Return where a file of template/ is rendered to, in a service that has it."""
    parts = [part for part in PurePosixPath(name).parts[1:] if not re.fullmatch(r"{{ with\w* }}", part)]
    return "/".join(parts).removesuffix(".jinja")


def sources_by_name(names: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        if "/_parts/" not in name:
            found.setdefault(rendered_name(name), []).append(name)
    return found


def test_every_rendered_file_has_one_source() -> None:
    several = {name for name, sources in sources_by_name(tracked("template")).items() if len(sources) > 1}
    assert several == ONE_OF


def test_a_second_source_of_a_file_is_noticed() -> None:
    names = ["template/app/main.py", "template/{{ with_cache }}/app/main.py.jinja"]
    assert sources_by_name(names) == {"app/main.py": names}


# Names that decide where a file is rendered to, and not whether it is rendered.
PLACES = {"{{ _copier_conf.answers_file }}.jinja"}


def test_a_condition_is_a_folder_of_its_own_and_the_name_of_a_fact() -> None:
    for name in tracked("template"):
        first, *others = [part for part in PurePosixPath(name).parts[1:] if "{" in part] or [""]
        assert others == [], f"{name} has a second condition in its path"
        fact = re.fullmatch(r"{{ (with\w*) }}", first)
        assert first in {"", *PLACES} or (fact and fact[1] in FACTS), name


def test_a_fact_that_is_a_folder_renders_to_this_folder_or_to_nothing() -> None:
    for fact in {fact for name in tracked("template") for fact in re.findall(r"{{ (with\w*) }}/", name)}:
        found = {str(facts(**answers)[fact]) for answers in combinations()}
        assert found == {".", "None"} or found == {".", ""}, fact


def test_a_part_of_a_service_has_the_name_of_its_fact() -> None:
    parts = ENVIRONMENT.get_template("includes/parts.jinja").make_module(DEFAULTS | facts()).parts  # type: ignore[attr-defined]
    for part in parts:
        assert part["name"] == "service" or f"with_{part['name']}" in FACTS


RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def fits_windows(name: str) -> bool:
    return not any(
        re.search(r'[<>:"\\|?*\x00-\x1f]', part) or part[-1] in ". " or RESERVED.match(part)
        for part in PurePosixPath(name).parts
    )


def test_windows_can_check_the_repository_out() -> None:
    assert [name for name in tracked() if not fits_windows(name)] == []


@pytest.mark.parametrize(
    "name", ['a/{{ "x" }}', "a:b", "a*", "why?", "a<b", "a|b", "a\\b", "con.py", "a./b", "a "]
)
def test_a_name_that_windows_refuses_is_noticed(name: str) -> None:
    assert not fits_windows(name)


def machine_paths(text: str) -> list[str]:
    """Return the paths that only one machine has."""
    paths = re.findall(r"(?<![\w.~-])/(?:home|Users|root|work|opt/pypi|tmp/w)/[\w.]+", text)
    # The Dockerfile names the home of the image's root, for the caches of a build.
    return [path for path in paths if path != "/root/.cache"]


def other_indexes(lock: str) -> set[str]:
    """Return the hosts of a lock's packages, without those of the public index."""
    return set(re.findall(r"(?:https?|file)://([^/\"\s]*)", lock)) - {"pypi.org", "files.pythonhosted.org"}


def test_no_file_names_somebodys_machine() -> None:
    found = {name: machine_paths((ROOT / name).read_text(errors="ignore")) for name in tracked()}
    assert {name: paths for name, paths in found.items() if paths} == {}


@pytest.mark.parametrize("folder", ["home", "Users", "root", "work"])
def test_a_machines_path_is_noticed(folder: str) -> None:
    assert machine_paths(f"see /{folder}/jane/x") == [f"/{folder}/jane"]


def test_the_locks_name_only_the_public_index() -> None:
    locks = [name for name in tracked() if "uv.lock" in name]
    assert locks
    assert {name: hosts for name in locks if (hosts := other_indexes(text_of(name)))} == {}


def test_another_package_index_is_noticed() -> None:
    assert other_indexes('source = { registry = "https://packages.example/simple" }') == {"packages.example"}
    assert other_indexes('source = { registry = "https://pypi.org/simple" }') == set()
