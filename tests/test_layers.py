"""Data flows one way: a module imports from its own folder and those before it, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from imatlas.models import MODELS, model_class

SOURCE = Path(__file__).resolve().parents[1] / "src" / "imatlas"

ORDER: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("arguments", "seeding"),
    ("system",),
    ("lattice",),
    ("images",),
    ("nn",),
    ("neighbors", "result"),
    ("metrics",),
    ("training",),
    ("models",),
    ("tasks",),
    ("plots", "report", "scale"),
    ("atlas",),
    ("studio",),
    ("testing",),
    ("cli",),
    ("__init__", "__main__"),
)
"""The folders and loose modules of `imatlas`, each built on what stands before it; what shares a row stands
alone."""

TRAINED = {target.partition(":")[0] for name, target in MODELS.items() if model_class(name).input == "images"}
"""Files of models that no other may import, since one that takes a model takes any; others may be built upon."""

RANK = {name: row for row, names in enumerate(ORDER) for name in names}
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


def complaints(code: str, name: str) -> list[str]:
    """Each import of the module `name` that goes against the flow."""
    own = name.partition(".")[0]
    found = []
    for target, line in imports(code, name):
        other, _, inside = target.partition(".")
        if target == "__version__":  # the one name that lies in the package itself
            continue
        if other not in RANK:
            found.append(f"line {line}: imports '{target}' from imatlas itself; name the module where it lives")
        elif other != own and RANK[other] >= RANK.get(own, 0):
            found.append(f"line {line}: '{own}' imports '{target}', which does not stand before it")
        elif own == other == "models" and inside.partition(".")[0] in TRAINED:
            found.append(f"line {line}: a model imports '{target}'; it may be built of parts and closed-form models")
    return found


def module_name(path: Path) -> str:
    """The name of a file below imatlas: "models.som"; a package is "models.__init__"."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, however many steps it takes: the strong components of more than one (Tarjan)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        path.append(module)
        for other in sorted(graph[module]):
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            at = path.index(module)
            if len(path) - at > 1:
                found.append(sorted(path[at:]))
            del path[at:]

    for module in sorted(graph):
        if module not in number:
            visit(module)
    return found


def import_graph() -> dict[str, set[str]]:
    """For each module the modules that it imports."""
    names = {module_name(path).removesuffix(".__init__"): path for path in FILES}
    graph = {}
    for name, path in names.items():
        reached = set()
        for target, _ in imports(path.read_text(encoding="utf-8"), module_name(path)):
            known = next((t for t in (target, target.rpartition(".")[0]) if t in names), None)
            reached |= {known} - {name, None}
        graph[name] = reached
    return graph


def test_every_folder_and_loose_module_has_its_place() -> None:
    here = {module_name(path).partition(".")[0] for path in FILES}
    assert here == set(RANK)


def test_few_modules_lie_loose() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 8


def test_networks_are_the_models_that_no_other_imports() -> None:
    assert {"vae", "gan", "pretrained"} <= TRAINED
    assert not {"som", "kmeans", "layout"} & TRAINED


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_flow_one_way(path: Path) -> None:
    assert not complaints(path.read_text(encoding="utf-8"), module_name(path))


def test_no_modules_import_each_other() -> None:
    assert not circles(import_graph())


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["a", "b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize(
    ("name", "code", "wrong"),
    [
        ("images.dataset", "from imatlas.models.base import Estimator", True),
        ("images.dataset", "def f():\n    from imatlas.models.base import Estimator", True),
        ("images.dataset", "import imatlas.training.loop", True),
        ("images.dataset", "from imatlas import atlas", True),
        ("images.dataset", "from ..models import base", True),
        ("images.dataset", "from . import pixels", False),
        ("images.dataset", "if TYPE_CHECKING:\n    from imatlas.models.base import Estimator", False),
        ("images.dataset", "if TYPE_CHECKING:\n    pass\nelse:\n    from imatlas.models.base import Estimator", True),
        ("plots.canvas", "from imatlas.report.page import render", True),
        ("models.som", "from imatlas.models.base import Estimator", False),
        ("models.som", "from imatlas.models.parts.lloyd import lloyd", False),
        ("models.som", "from imatlas.models.kmeans import KMeans", False),
        ("models.som", "from imatlas.models.vae import VAE", True),
        ("models.som", "from imatlas.models import vae", True),
        ("models.som", "from imatlas import SOM", True),
        ("models.som", "from imatlas import __version__", False),
        ("tasks.map", "from imatlas.models.som import SOM", False),
        ("training.loop", "from imatlas import seeding", False),
        ("models.artifact", "from imatlas import models", False),
        ("models.artifact", "from imatlas import tasks", True),
        ("cli.shared", "from imatlas.atlas.atlas import Atlas", False),
    ],
)
def test_the_rule_itself(name: str, code: str, wrong: bool) -> None:
    assert bool(complaints(code, name)) == wrong
