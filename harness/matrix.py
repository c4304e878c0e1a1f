"""The answers that copier.yml allows, read from it so that a new choice is tested without being listed."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).parents[1]
CONFIGURATION: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
QUESTIONS: dict[str, dict[str, Any]] = {
    name: question for name, question in CONFIGURATION.items() if not name.startswith("_")
}
ASKED = {name: question for name, question in QUESTIONS.items() if question.get("when") is not False}

Answers = dict[str, Any]

# Questions without choices: values that stand for the rest.
SAMPLES = {"workers": [1, 2]}


def choices(name: str) -> dict[Any, str]:
    """The values of a question with choices, each with its validator ("" where it has none)."""
    values = QUESTIONS[name]["choices"].values()
    return {v["value"]: v.get("validator", "") if isinstance(v, dict) else "" for v in map(_extended, values)}


def _extended(choice: Any) -> dict[str, Any]:
    return choice if isinstance(choice, dict) else {"value": choice}


def values(name: str) -> list[Any]:
    """What a question is asked with in the matrix, its default first."""
    if "choices" in QUESTIONS[name]:
        return sorted(choices(name), key=lambda value: value != QUESTIONS[name]["default"])
    return SAMPLES[name]


MATRIX = [name for name, question in ASKED.items() if "choices" in question or name in SAMPLES]
DEFAULTS: Answers = {name: values(name)[0] for name in MATRIX}


def refusal(answers: Answers) -> str:
    """Why a choice may not be answered beside the others, or "" when it may."""
    for name, value in answers.items():
        if "choices" in QUESTIONS[name]:
            validator = jinja2.Template(choices(name).get(value, ""))
            if why := validator.render(DEFAULTS | answers).strip():
                return str(why)
    return ""


def combinations(*names: str, **fixed: Any) -> Iterator[Answers]:
    """Every allowed combination of these questions (all where none is named), beside what is fixed."""
    names = names or tuple(name for name in MATRIX if name not in fixed)
    for chosen in itertools.product(*map(values, names)):
        answers = dict(zip(names, chosen, strict=True)) | fixed
        if not refusal(answers):
            yield answers


def covering(*names: str, **fixed: Any) -> list[Answers]:
    """A small set of allowed combinations in which every pair of choices that may meet does."""
    candidates = list(combinations(*names, **fixed))
    missing = set().union(*map(pairs, candidates))
    chosen = []
    while missing:
        best = max(candidates, key=lambda answers: len(pairs(answers) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def telling() -> list[Answers]:
    """What is rendered to look at files: every pair of choices, and all of those that shape files most.

    For any two choices of a question there are services that differ in nothing else.
    """
    shaping = ("package_manager", "server", "database", "cache")
    plain = {name: DEFAULTS[name] for name in MATRIX if name not in shaping}
    few = {name: DEFAULTS[name] for name in ("database", "cache")}
    return _without_repetition(
        [*combinations(**few), *combinations(*shaping, **plain), *covering()],
    )


def _without_repetition(found: list[Answers]) -> list[Answers]:
    ordered = [{name: answers[name] for name in MATRIX} for answers in found]
    return [answers for number, answers in enumerate(ordered) if answers not in ordered[:number]]


def pairs(answers: Answers) -> set[tuple[Any, ...]]:
    """Every two of the answers."""
    return set(itertools.combinations(sorted(answers.items()), 2))


def computed(name: str, **answers: Any) -> bool:
    """What a question that is never asked says beside these answers."""
    return str(jinja2.Template(QUESTIONS[name]["default"]).render(DEFAULTS | answers)) == "True"


def label(answers: Answers) -> str:
    """A test's id, such as `3.14-uv-gunicorn-2-package`."""
    return "-".join(str(value) for value in answers.values())
