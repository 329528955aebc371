"""Data flows one way: a module imports only from its own room and from rows above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "imatlas"

ROWS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"errors": ("errors", "arguments", "_version", "_early"), "chance": ("chance",), "terminal": ("terminal",)},
    {
        "disk": ("disk", "inventory", "kept", "csv_files"),
        "lattice": ("lattice",),
        "threads": ("threads",),
    },
    {"images": ("images",)},
    {"nn": ("nn",)},
    {name: (name,) for name in ("losses", "solvers", "augment", "nearest", "views", "likeness")},
    {"metrics": ("metrics",)},
    {"result": ("result",), "progress": ("progress",)},
    {"devices": ("devices",)},
    {"training": ("training", "batches", "checkpoints", "schedule")},
    {"artifact": ("artifact", "fitted"), "export": ("export",)},
    {"models": ("models",)},
    {"tasks": ("tasks",)},
    {"report": ("report",), "plots": ("plots",), "table": ("table", "table_manifest", "table_values")},
    {
        "atlas": (
            "atlas",
            "opened",
            "originals",
            "exploring",
            "making",
            "learning",
            "repair",
            "stages",
            "story",
            "drawing",
            "manifest",
            "journal",
        )
    },
    {"scale": ("scale",), "studio": ("studio",), "demo": ("demo",), "testing": ("testing",)},
    {"cli": ("cli", "__main__")},
)
"""What is built on what, the lowest first: each row holds rooms, and each room the modules of `imatlas` in it."""

ALLOWED = {
    ("artifact", "models"): "a saved model names its class, which is looked up in the table of models when it is read",
    ("__init__", "models"): "the public names of the models come from their table",
    ("__init__", "errors"): "the version",
    ("__init__", "threads"): "how threads wait is said before torch is loaded",
}
"""(room, room above it): why."""

SHARED = (
    "base",
    "network",
    "latent",
    "sharpener",
    "mixture",
    "players",
    "generator",
    "batch_map",
    "lattice",
    "rows",
    "lloyd",
    "fisher",
    "umap_places",
    "student",
    "labels",
    "vision_tower",
)
"""What models may import from their own room: what is no model itself."""

RANK = {module: row for row, rooms in enumerate(ROWS) for modules in rooms.values() for module in modules}
ROOM = {module: room for rooms in ROWS for room, modules in rooms.items() for module in modules}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(code: str, name: str) -> Iterator[tuple[str, int]]:
    """What the module `name` ("models.som") imports from imatlas, anywhere in its code, as ("models.base", line).

    Imports for the type checker alone do not count: they never run.
    """
    tree = ast.parse(code)
    skipped = {id(n) for top in ast.walk(tree) if _is_type_checking(top) for part in top.body for n in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = f"imatlas.{name}".split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in names:
            if full.partition(".")[0] == "imatlas":
                yield full.partition(".")[2], node.lineno


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def may_import(own: str, other: str) -> bool:
    """Whether a module of imatlas may build on another one."""
    room = ROOM.get(own, own)
    return room == ROOM[other] or (room, ROOM[other]) in ALLOWED or RANK[other] < RANK.get(own, 0)


def complaints(code: str, name: str) -> list[str]:
    """Each import of the module `name` that goes against the flow."""
    own = name.partition(".")[0]
    found = []
    for target, line in imports(code, name):
        other = target.partition(".")[0]
        if other not in ROOM:  # a public name, taken from the package itself
            found.append(f"line {line}: imports '{target}' from imatlas itself; name the module where it lives")
        elif not may_import(own, other):
            found.append(f"line {line}: '{own}' imports '{target}', which is not in a row before its own")
        parts = target.split(".")
        if own == "models" and other == "models" and len(parts) > 1 and parts[1] not in SHARED:
            found.append(f"line {line}: a model imports '{target}'; models never import models")
    return found


def module_name(path: Path) -> str:
    """The name of a file below imatlas: "models.som"; a package is "models.__init__"."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def test_every_module_has_a_row() -> None:
    homeless = {module_name(path).partition(".")[0] for path in FILES} - set(ROOM) - {"__init__"}
    assert not homeless, f"give {sorted(homeless)} a place in ROWS"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_flow_one_way(path: Path) -> None:
    assert not complaints(path.read_text(encoding="utf-8"), module_name(path))


@pytest.mark.parametrize(
    ("name", "code", "wrong"),
    [
        ("images.dataset", "from imatlas.models.base import Estimator", True),
        ("images.dataset", "def f():\n    from imatlas.models.base import Estimator", True),
        ("images.dataset", "import imatlas.training", True),
        ("images.dataset", "from imatlas import atlas", True),
        ("images.dataset", "from ..models import base", True),
        ("images.dataset", "from . import pixels", False),
        ("images.dataset", "if TYPE_CHECKING:\n    from imatlas.models.base import Estimator", False),
        ("images.dataset", "if TYPE_CHECKING:\n    pass\nelse:\n    from imatlas.models.base import Estimator", True),
        ("losses", "from imatlas.nearest import nearest", True),
        ("models.som", "from imatlas.models.base import Estimator", False),
        ("models.som", "from imatlas.models.kmeans import KMeans", True),
        ("models.som", "from imatlas.models import kmeans", True),
        ("models.som", "from imatlas import SOM", True),
        ("tasks.map", "from imatlas.models.som import SOM", False),
        ("training", "from imatlas import chance, devices", False),
        ("artifact", "from imatlas import models", False),
        ("artifact", "from imatlas import tasks", True),
        ("__init__", "from imatlas.atlas import Atlas", True),
    ],
)
def test_the_rule_itself(name: str, code: str, wrong: bool) -> None:
    assert bool(complaints(code, name)) == wrong
