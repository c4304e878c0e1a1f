"""The templates that the locks of all combinations are merged into."""

import json
import re
from collections.abc import Sequence

from lock_matrix import PROJECT_NAME, Combination, python_versions
from lock_merge import Bits, Block, Matrix, merge
from lock_uv import Locked
from packaging.version import Version

# uv keeps the wheels that requires-python allows: those of a newer interpreter and those of any.
_VERSION_WHEEL = r'-(?:cp|pp|graalpy)(?:%s)-(?:cp|pypy|graalpy)[^-"]*-[^-"]*\.whl"'

_GENERATED = (
    "Written by scripts/lock.py from uv's locks of every combination of answers: run make lock, don't edit."
)


def merged_locks(found: Sequence[Combination], locked: Sequence[Locked], moment: str) -> str:
    """The template of uv.lock: few conditions, and two expressions that save the most."""
    matrix = Matrix([combination.answers for combination in found])
    versions = python_versions(found)
    heads: list[list[Block]] = []
    roots: list[list[Block]] = []
    packages: list[list[Block]] = []
    for combination, texts in zip(found, locked, strict=True):
        head, *blocks = texts.uv_lock.rstrip("\n").split("\n\n[[package]]\n")
        floor = f'requires-python = ">={combination.answers["python_version"]}"'
        heads.append([Block((), tuple(head.replace(floor, _PYTHON_FLOOR).split("\n")))])
        parsed = [package_block(block) for block in blocks]
        roots.append([block for block in parsed if block.key[0] == PROJECT_NAME])
        packages.append([block for block in parsed if block.key[0] != PROJECT_NAME])
    version_wheels = [
        (
            re.compile(_VERSION_WHEEL % version.replace(".", "")),
            matrix.where(
                {"python_version": [other for other in versions if Version(other) <= Version(version)]}
            ),
        )
        for version in versions
    ]

    def shown(line: str) -> Bits:
        return next((bits for wheel, bits in version_wheels if wheel.search(line)), matrix.all)

    head = merge(heads, matrix).replace(_PYTHON_FLOOR, 'requires-python = ">={{ python_version }}"')
    return _UV_LOCK_TEMPLATE % {
        "generated": _GENERATED,
        "moment": moment,
        "versions": ", ".join(repr(version) for version in versions),
        "wheel": _VERSION_WHEEL.replace("\\", "\\\\") % "' ~ older ~ '",
        "head": head,
        "root": merge(roots, matrix).replace(f'"{PROJECT_NAME}"', '"{{ project_name }}"'),
        "packages": merge(packages, matrix, shown),
    }


_PYTHON_FLOOR = "requires-python"

_UV_LOCK_TEMPLATE = """\
{# %(generated)s #}
{# The versions and files are those of the index as of %(moment)s. #}
%(head)s{# The service's own entry: its place depends on its name. #}
{%% set root %%}
%(root)s{%% endset %%}
{# uv leaves out the wheels that only an older Python can use. #}
{%% set older = [%(versions)s] | select('lt', python_version) | map('replace', '.', '') | join('|') %%}
{%% set wheels_of_older = '\\n[^\\n]*%(wheel)s[^\\n]*' %%}
{%% set packages | regex_replace(wheels_of_older, '') %%}
%(packages)s{%% endset %%}
{%% set entry = '\\n[[package]]\\nname = "' %%}
{%% set names = packages | regex_findall('\\\\[\\\\[package\\\\]\\\\]\\nname = "(.+)"') %%}
{%% set later = names | select('gt', project_name) | list %%}
{%% if later %%}
{{ packages | replace(entry ~ later[0] ~ '"', root ~ entry ~ later[0] ~ '"', 1) -}}
{%% else %%}
{{ packages ~ root -}}
{%% endif %%}
"""


def package_block(block: str) -> Block:
    """A package's entry in uv.lock, given without its first line."""
    name, version = re.findall(r'\Aname = "(.+)"\nversion = "(.+)"$', block, re.MULTILINE)[0]
    # uv sets packages apart by an empty line.
    return Block((name, Version(version)), ("", "[[package]]", *block.split("\n")))


def merged_requirements(found: Sequence[Combination], locked: Sequence[Locked]) -> str:
    """One template for both files: the list for development holds the other one."""
    matrix = Matrix(
        [
            {**combination.answers, "development": development}
            for combination in found
            for development in (False, True)
        ]
    )
    texts: list[list[Block]] = []
    for combination, text in zip(found, locked, strict=True):
        for requirements in (text.requirements, text.development):
            version = str(combination.answers["python_version"])
            head, blocks = requirement_blocks(requirements)
            head = head.replace(f"--python-version {version}", "--python-version {version}")
            texts.append([Block(("",), tuple(head.split("\n"))), *blocks])
    merged = merge(texts, matrix).replace(
        "--python-version {version}", "--python-version {{ python_version }}"
    )
    return f"{{# {_GENERATED} #}}\n{merged}"


def requirement_blocks(text: str) -> tuple[str, list[Block]]:
    """The comments at the head of a list of requirements, and its requirements with their hashes."""
    head: list[str] = []
    blocks: list[Block] = []
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("#") and not blocks:
            head.append(line)
        elif line.startswith(" "):
            blocks[-1] = Block(blocks[-1].key, (*blocks[-1].lines, line))
        else:
            name, version = line.split(" ")[0].split("==")
            blocks.append(Block((name, Version(version)), (line,)))
    return "\n".join(head), blocks


def reserved_names(names: Sequence[str]) -> str:
    """The names that a service can't have: it would depend on itself."""
    listed = "".join(f"    {json.dumps(name)},\n".replace('"', "'") for name in names)
    return f"{{# {_GENERATED} #}}\n{{% set reserved_names = [\n{listed}] %}}\n"
