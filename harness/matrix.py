"""The answers that copier.yml allows, read from it so that a new choice is tested without being listed."""

import functools
import itertools
import operator
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2_ansible_filters import AnsibleCoreFiltersExtension

ROOT = Path(__file__).parents[1]
CONFIGURATION: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
QUESTIONS: dict[str, dict[str, Any]] = {
    name: question for name, question in CONFIGURATION.items() if not name.startswith("_")
}
ASKED = {name: question for name, question in QUESTIONS.items() if question.get("when") is not False}
# Computed from the answers. Those that are folders in template/ render to "." or to nothing.
FACTS = {name: question for name, question in QUESTIONS.items() if name not in ASKED}

Answers = dict[str, Any]

# Questions without choices, with values that stand for the rest.
SAMPLES = {"workers": [1, 2]}

# Questions that add files of their own, and the same lines to others whatever these are: their choices meet
# all others in pairs. Each has here the questions whose answers refuse some of its choices.
WITH_FILES_OF_THEIR_OWN: dict[str, tuple[str, ...]] = {
    "observability": (),
    "proxy": (),
    "kubernetes": ("database",),
    "ci": (),
}

# Questions whose choices meet all others in pairs, because no other answer changes what they do.
IN_PAIRS = ("python_version", *WITH_FILES_OF_THEIR_OWN)

# Where a new copy goes: the default of `ci` depends on what is there. Nothing can be in this folder.
NEW_FOLDER = Path(os.devnull) / "orders-api"


def environment(folder: Path = ROOT) -> jinja2.Environment:
    """Set Jinja up as Copier does for the template in this folder."""
    options = CONFIGURATION["_envops"] | {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    loader = jinja2.FileSystemLoader(folder)
    return jinja2.Environment(loader=loader, extensions=[AnsibleCoreFiltersExtension], **options)


ENVIRONMENT = environment()


@functools.cache
def expression(source: str) -> jinja2.Template:
    """Compile a template of copier.yml, once."""
    return ENVIRONMENT.from_string(source)


@functools.cache
def default(name: str) -> Any:
    """Return the default that a question has in a new copy."""
    value = QUESTIONS[name]["default"]
    if not isinstance(value, str):
        return value
    return expression(value).render(_copier_conf={"dst_path": NEW_FOLDER})


def choices(name: str) -> dict[Any, str]:
    """Return the values of a question with choices, each with its validator, or "" where it has none."""
    values = QUESTIONS[name]["choices"].values()
    return {v["value"]: v.get("validator", "") if isinstance(v, dict) else "" for v in map(_extended, values)}


def _extended(choice: Any) -> dict[str, Any]:
    return choice if isinstance(choice, dict) else {"value": choice}


def values(name: str) -> list[Any]:
    """Return the values with which a question is tested, its default first."""
    if "choices" in QUESTIONS[name]:
        return sorted(choices(name), key=lambda value: value != default(name))
    return SAMPLES[name]


MATRIX = [name for name, question in ASKED.items() if "choices" in question or name in SAMPLES]
DEFAULTS: Answers = {name: values(name)[0] for name in MATRIX}


def refusal(answers: Answers) -> str:
    """Return why Copier refuses a choice beside the others, or "" where it takes all of them."""
    together = {name: value for name, value in answers.items() if name not in WITH_FILES_OF_THEIR_OWN}
    others = [
        {name: answers[name] for name in (own, *refused_by) if name in answers}
        for own, refused_by in WITH_FILES_OF_THEIR_OWN.items()
    ]
    return next(filter(None, (_refusal(tuple(part.items())) for part in (together, *others))), "")


@functools.cache
def _refusal(answers: tuple[tuple[str, Any], ...]) -> str:
    known = DEFAULTS | facts(**dict(answers)) | dict(answers)
    for name, value in answers:
        validator = choices(name).get(value, "") if "choices" in QUESTIONS[name] else ""
        if why := expression(validator).render(known).strip():
            return str(why)
    return ""


def combinations(*names: str, **fixed: Any) -> Iterator[Answers]:
    """Yield every allowed combination of these questions, or of all, beside the answers that are fixed."""
    names = names or tuple(name for name in MATRIX if name not in fixed)
    for chosen in itertools.product(*map(values, names)):
        answers = dict(zip(names, chosen, strict=True)) | fixed
        if not refusal(answers):
            yield answers


def covering(*names: str, **fixed: Any) -> list[Answers]:
    """Return a small set of allowed combinations that has every pair of choices which may meet."""
    return [dict(answers) for answers in _covering(names, tuple(fixed.items()))]


@functools.cache
def _covering(names: tuple[str, ...], fixed: tuple[tuple[str, Any], ...]) -> list[Answers]:
    # A number with a bit for each pair is counted much sooner than a set of pairs.
    bits: dict[tuple[Any, ...], int] = {}
    candidates = [
        (answers, sum(1 << bits.setdefault(pair, len(bits)) for pair in pairs(answers)))
        for answers in combinations(*names, **dict(fixed))
    ]
    missing = (1 << len(bits)) - 1
    chosen = []
    while missing:
        best = max(candidates, key=lambda candidate: (candidate[1] & missing).bit_count())
        chosen.append(best)
        missing &= ~best[1]
    # Those that were chosen later may have all pairs of an earlier one.
    for one in [*chosen]:
        others = functools.reduce(operator.or_, [found for other, found in chosen if other is not one[0]], 0)
        if not one[1] & ~others:
            chosen.remove(one)
    return [answers for answers, _ in chosen]


def rendered() -> list[Answers]:
    """Return the combinations that are rendered and inspected.

    They are every combination of the questions that shape the same files, every pair of choices, and for each
    choice of the other questions services that differ in one answer more.
    """
    shaping = [name for name in MATRIX if name not in IN_PAIRS]
    plain = {name: DEFAULTS[name] for name in IN_PAIRS}
    found = [*combinations(*shaping, **plain), *covering()]
    for own in IN_PAIRS:
        for name in MATRIX:
            if name != own:
                others = {other: DEFAULTS[other] for other in MATRIX if other not in {own, name}}
                found += combinations(own, name, **others)
    return list({label(answers): answers for answers in ordered(found)}.values())


def ordered(found: Iterable[Answers]) -> Iterator[Answers]:
    """Yield the answers of each combination in the order of the questions."""
    for answers in found:
        yield {name: answers[name] for name in MATRIX}


def pairs(answers: Answers) -> set[tuple[Any, ...]]:
    """Return every two of the answers."""
    return set(itertools.combinations(sorted(answers.items()), 2))


def facts(**answers: Any) -> dict[str, Any]:
    """Return all computed values beside these answers, as templates see them."""
    return dict(_facts(tuple((DEFAULTS | answers).items())))


@functools.cache
def _facts(answers: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    known = dict(answers)
    for name, fact in FACTS.items():
        default = fact["default"]
        known[name] = expression(default).render(known) if isinstance(default, str) else default
    return {name: known[name] for name in FACTS}


def has(fact: str, **answers: Any) -> bool:
    """Tell whether a service with these answers has what a fact stands for."""
    return bool(facts(**answers)[fact])


def label(answers: Answers) -> str:
    """Return a test's id, such as `3.14-uv-gunicorn-2-package`."""
    return "-".join(str(value) for value in answers.values())
