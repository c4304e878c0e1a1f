"""Write the addresses of this repository and of its site where they belong.

`make address REPOSITORY=https://example.com/copier-fastapi SITE=https://example.com/docs` writes the first of
them into the pages, and the second into copier.yml, so that the pages of rendered services link to the site.
Run again, it changes both.
"""

import argparse
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Lines of the pages that are true until there is an address, and those that take their place then.
UNTIL_THEN = re.compile(
    r"<!-- until there is an address -->\n.*?(?:<!-- then\n(.*?\n)-->\n)?<!-- end -->\n\n?", re.DOTALL
)
# Stands for the address of the site in the latter.
THE_SITE = "https://SITE"


def main() -> None:
    """Write the addresses that are given, and list the files that changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=address, help="what `copier copy` takes")
    parser.add_argument("site", type=address, help="where the pages of `make docs` are")
    arguments = parser.parse_args()
    for name in write(arguments.repository, arguments.site):
        print(name)


def address(text: str) -> str:
    """Return an address without its last slash. Raise an ArgumentTypeError if it is none."""
    if not re.fullmatch(r"https?://[^\s\"'<>|]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address: it begins with https://")
    return text.rstrip("/")


def write(repository: str, site: str) -> list[str]:
    """Write both addresses, and return the files that changed."""
    before = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    site_before = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["site_url"] or THE_SITE
    texts = {
        name: (ROOT / name).read_text()
        for name in [*pages(), "pyproject.toml", "copier.yml", "zensical.toml"]
    }
    changed = {
        name: UNTIL_THEN.sub(lambda found: found[1] or "", text)
        .replace(before, repository)
        .replace(site_before, site)
        for name, text in texts.items()
        if name in pages()
    }
    changed["pyproject.toml"] = with_value(texts["pyproject.toml"], "Repository = ", repository)
    changed["copier.yml"] = with_value(
        texts["copier.yml"], "documentation:\n  when: false\n  default: ", site
    )
    changed["zensical.toml"] = with_value(texts["zensical.toml"], "site_url = ", site)
    for name, text in changed.items():
        (ROOT / name).write_text(text)
    return [name for name, text in changed.items() if text != texts[name]]


def pages() -> list[str]:
    """Return the pages that name the repository. Rendered examples don't."""
    git = ["git", "ls-files", "README.md", "docs/*.md", ":!docs/examples"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def with_value(text: str, before: str, value: str) -> str:
    """Return a file with another quoted value after a text that it has once."""
    changed, found = re.subn(rf'^({re.escape(before)})".*"$', rf'\1"{value}"', text, flags=re.MULTILINE)
    assert found == 1, before
    return changed


if __name__ == "__main__":
    main()
