"""Build the site of docs/: `make docs`.

The site is a folder of static files, for any host and any path of it, with the playground in it. A link that
leads nowhere, a picture that is missing and a page that the menu leaves out end the build.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_playground

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "zensical.toml"
CHANGELOG = "CHANGELOG.md"
# What a page shows on the site alone, such as a link to the playground.
ON_THE_SITE = re.compile(r"<!-- on the site: (.*) -->")
# Rendered services, whose pages are not this site's.
EXAMPLES = "examples"


def main() -> None:
    """Build the site into the folder that zensical.toml names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-playground", action="store_true", help="build only the pages")
    arguments = parser.parse_args()
    try:
        folder = build(with_playground=not arguments.without_playground)
    except ValueError as error:
        sys.exit(str(error))
    print(f"{folder} has the site. To see it: python -m http.server --directory {folder}")


def build(with_playground: bool = True) -> Path:
    """Build the site, and return its folder. Raise a ValueError where a page or a link is wrong."""
    project = tomllib.loads(CONFIGURATION.read_text())["project"]
    pages = ROOT / project["docs_dir"]
    gather(pages)
    check_menu(pages, project["nav"])
    check_pictures(pages)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode:
        # What follows is how Zensical ended.
        raise ValueError(built.stderr.partition("Traceback")[0])
    site = ROOT / str(project["site_dir"])
    if with_playground:
        build_playground.build(site / "playground", documentation="../index.html")
    return site


def gather(pages: Path) -> None:
    """Copy the pages into a folder, and the changelog beside them."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns(EXAMPLES))
    for page in pages.rglob("*.md"):
        text = page.read_text().replace(f"](../{CHANGELOG}", f"]({CHANGELOG.lower()}")
        page.write_text(ON_THE_SITE.sub(r"\1", text))
    changelog = (ROOT / CHANGELOG).read_text()
    (pages / CHANGELOG.lower()).write_text(changelog.replace("](docs/", "]("))


def check_menu(pages: Path, menu: list[Any]) -> None:
    """Raise a ValueError if a page is not in the menu of the site."""
    if missing := {page.relative_to(pages).as_posix() for page in pages.rglob("*.md")}.difference(
        entries(menu)
    ):
        raise ValueError(f"not in `nav` of zensical.toml: {', '.join(sorted(missing))}")


def check_pictures(pages: Path) -> None:
    """Raise a ValueError if a page shows a picture that isn't there, which Zensical doesn't notice."""
    for page in pages.rglob("*.md"):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            if not (page.parent / picture).exists():
                raise ValueError(f"{page.relative_to(pages)} shows {picture}, which is missing")


def entries(menu: Any) -> Iterator[str]:
    """Yield the pages and addresses of a menu."""
    if isinstance(menu, str):
        yield menu
    else:
        for entry in menu.values() if isinstance(menu, dict) else menu:
            yield from entries(entry)


if __name__ == "__main__":
    main()
