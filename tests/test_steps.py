"""Tests that the steps of a page are taken as a reader takes them."""

from pathlib import Path

import pytest

from harness.steps import follow, steps

PAGE = '''
Create `app/greetings.py`:

```python
"""Greetings."""

LANGUAGES = 2


def hello(name: str) -> str:
    return f"Hello, {name}"
```

Then greet in French too. Add to `app/greetings.py`:

```python
from pathlib import Path
import os


def bonjour(name: str) -> str:
    return os.fspath(Path("Bonjour") / name)
```

Change `app/greetings.py`:

```diff
--- a/app/greetings.py
+++ b/app/greetings.py
@@ -3,4 +3,4 @@
-LANGUAGES = 2
+LANGUAGES = 3


 def hello(name: str) -> str:
```

Add to `.env`:

```shell
LANGUAGE=fr
```

```shell
cat .env
echo "$PLACE"
```

It prints:

```text
LANGUAGE=fr
```

Replace `.env`:

```shell
LANGUAGE=de
```
'''

RESULT = '''"""Greetings."""

import os
from pathlib import Path

LANGUAGES = 3


def hello(name: str) -> str:
    return f"Hello, {name}"


def bonjour(name: str) -> str:
    return os.fspath(Path("Bonjour") / name)
'''


def test_a_page_is_followed_in_its_order(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=8000")
    (tmp_path / "ruff.toml").write_text('lint.select = ["I"]')
    printed = follow(PAGE, tmp_path, PLACE="Paris")
    assert (tmp_path / "app" / "greetings.py").read_text() == RESULT
    assert (tmp_path / ".env").read_text() == "LANGUAGE=de\n"
    assert printed == "PORT=8000\nLANGUAGE=fr\nParis\n"
    # Patch leaves no copy of the file before.
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["greetings.py"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\nprint()\n```\n", "doesn't say what to do"),
        ("Create `a.py`\n\n```python\nprint()\n```\n", "doesn't say what to do"),
        ("Create `a.py`:\nnow\n\n```python\nprint()\n```\n", "doesn't say what to do"),
        ("Change `a.py`:\n\n```python\nprint()\n```\n", "Change a.py with python"),
        ("```\nls\n```\n", "no language"),
        ("1. First\n\n   ```shell\n   ls\n   ```\n", "indented"),
        ("```shell\nls\n", "not closed"),
    ],
)
def test_no_block_of_a_page_is_left_out(text: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        steps(text)


DIFF = """Change `a.txt`:

```diff
--- a/{name}
+++ b/{name}
@@ -1 +1 @@
-{before}
+Two
```
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Create `a.txt`:\n\n```text\nOne\n```\n", "a.txt exists"),
        ("Add to `b.txt`:\n\n```text\nOne\n```\n", "b.txt does not exist"),
        ("Replace `b.txt`:\n\n```text\nOne\n```\n", "b.txt does not exist"),
        (DIFF.format(name="a.txt", before="Zero"), "FAILED"),
        (DIFF.format(name="b.txt", before="One"), "the diff of a.txt changes"),
        ("```shell\nfalse\ntrue\n```\n", "ended with 1"),
    ],
)
def test_a_step_that_can_not_be_taken_fails(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.txt").write_text("One\n")
    with pytest.raises(AssertionError, match=reason):
        follow(text, tmp_path)
    assert (tmp_path / "a.txt").read_text() == "One\n"


def test_the_lines_of_a_class_that_is_there_are_added_to_its_end(tmp_path: Path) -> None:
    module = tmp_path / "settings.py"
    module.write_text('class Settings:\n    """The settings."""\n\n\nDEFAULT = 1\n')
    follow(
        "Add to `settings.py`:\n\n```python\n"
        "import os\n\n\nclass Settings:\n    # Its place.\n    home: str = os.curdir\n```\n",
        tmp_path,
    )
    lines = [line for line in module.read_text().splitlines() if line]
    assert lines == [
        "import os",
        "class Settings:",
        '    """The settings."""',
        "    # Its place.",
        "    home: str = os.curdir",
        "DEFAULT = 1",
    ]
