"""Generates clients of a service from its OpenAPI document, and uses them."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.matrix import DEFAULTS, Answers, combinations, label, values
from harness.running import Process, run, serving
from harness.variants import variants
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

PYTHON = DEFAULTS["python_version"]

# The Python client and the program that uses it run in the environment of the generator, which has
# all that a client needs.
PYTHON_GENERATOR = "uv tool run --quiet --from openapi-python-client==0.29.1"
TYPESCRIPT = "npx --yes --package openapi-typescript@7.13.0 --package typescript@5.9.3 --"

# The group shares one running service.
IN_ONE_PROCESS = pytest.mark.xdist_group("generated-clients")


@pytest.fixture(scope="module")
def running(installed: RenderTo) -> Iterator[Process]:
    """A service with the example resource, which is running."""
    service = installed(**DEFAULTS | {"database": "sqlite"})
    run("alembic upgrade head", service)
    with serving(service) as process:
        yield process


@pytest.fixture
def document(running: Process, tmp_path: Path) -> Path:
    """The OpenAPI document of the running service, in a file."""
    file = tmp_path / "openapi.json"
    file.write_text(running.get("/openapi.json").text)
    return file


PROGRAM = '''"""Uses every operation on items."""

import sys

from client import Client
from client.api.items import change_item, create_item, delete_item, read_item, read_items
from client.models import Item, ItemChange, ItemPage, NewItem

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)

created = create_item.sync(client=client, body=NewItem(name="lamp", description="red"))
assert isinstance(created, Item)
assert (created.name, created.description) == ("lamp", "red")

page = read_items.sync(client=client, limit=1)
assert isinstance(page, ItemPage)
assert page.items == [created]
assert page.next_ is None


def change(change: ItemChange) -> tuple[str, str | None]:
    """Return the name and the description after the change, as the service then has them."""
    changed = change_item.sync(created.id, client=client, body=change)
    assert isinstance(changed, Item)
    assert read_item.sync(created.id, client=client) == changed
    return changed.name, changed.description


assert change(ItemChange(description="blue")) == ("lamp", "blue")
assert change(ItemChange(name="light")) == ("light", "blue")
assert change(ItemChange(description=None)) == ("light", None)
assert change(ItemChange()) == ("light", None)

assert delete_item.sync_detailed(created.id, client=client).status_code == 204
assert read_item.sync_detailed(created.id, client=client).status_code == 404
print("every operation works")
'''


@IN_ONE_PROCESS
def test_a_generated_python_client_creates_lists_changes_and_deletes_an_item(
    running: Process, document: Path, tmp_path: Path
) -> None:
    options = f"--path {document} --meta none --output-path client --fail-on-warning"
    run(f"{PYTHON_GENERATOR} openapi-python-client generate {options}", tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    printed = run(f"{PYTHON_GENERATOR} python program.py {running.client.base_url}", tmp_path)
    assert printed == "every operation works\n"


# `@ts-expect-error` is an error itself where the line below it has none.
TYPES = """import type { components, operations } from "./api";

type NewItem = components["schemas"]["NewItem"];
type ItemChange = components["schemas"]["ItemChange"];

export const changes: ItemChange[] = [{}, { description: "red" }, { description: null }, { name: "lamp" }];
export const created: NewItem[] = [{ name: "lamp" }, { name: "lamp", description: null }];
// @ts-expect-error: an item has a name
export const nameless: NewItem = { description: "red" };
// @ts-expect-error: a name is a text
export const unnamed: ItemChange = { name: null };

type Found = operations["read_item"]["responses"][200]["content"]["application/json"];
export const sentence = (item: Found): string => `${item.name}: ${item.description ?? "not described"}`;
"""


@IN_ONE_PROCESS
@pytest.mark.skipif(not shutil.which("npx"), reason="Node.js is not on this machine: there is no npx")
def test_generated_typescript_types_require_the_fields_that_the_service_requires(
    document: Path, tmp_path: Path
) -> None:
    run(f"{TYPESCRIPT} openapi-typescript {document} --output api.ts", tmp_path)
    (tmp_path / "program.ts").write_text(TYPES)
    run(f"{TYPESCRIPT} tsc --noEmit --strict --exactOptionalPropertyTypes program.ts", tmp_path)


PRINT_IDS = """
import json
from {module} import app
operations = [operation for path in app.openapi()["paths"].values() for operation in path.values()]
print(json.dumps([operation["operationId"] for operation in operations]))
"""
RESOURCE = {"read_root", "create_item", "read_items", "read_item", "change_item", "delete_item"}


def each_resource_and_server() -> list[Answers]:
    """Return the combinations that decide on the operations, and every server at least once among them."""
    servers = itertools.cycle(values("server"))
    chosen = combinations("database", "cache", "layout", python_version=PYTHON, package_manager="uv")
    return [{"server": next(servers), **answers} for answers in chosen]


@pytest.mark.parametrize("answers", variants(each_resource_and_server(), 4), ids=label)
def test_operations_have_the_names_of_their_functions_under_every_server_and_in_every_layout(
    installed: RenderTo, answers: Answers
) -> None:
    service = installed(**answers)
    in_package = answers["layout"] == "package"
    (service / "print_ids.py").write_text(PRINT_IDS.format(module="app.main" if in_package else "main"))
    ids = json.loads(run("python print_ids.py", service))
    expected = RESOURCE if answers["database"] != "none" else {"read_root", "read_item"}
    counted = {"count_items"} if answers["database"] != "none" and answers["cache"] == "redis" else set()
    assert sorted(ids) == sorted(expected | counted)
    source = "\n".join(path.read_text() for path in service.glob("app/*.py" if in_package else "main.py"))
    assert [name for name in ids if source.count(f"async def {name}(") != 1] == []
