"""Imports in engine/ point down only, and actors never import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "engine"

# From the bottom up. A name stands for a module or for a whole package. Within a layer
# modules may import each other, but for the one where they talk in messages.
LAYERS = [
    # pure: no loop, no clock, no logging
    {"exceptions", "checks", "ids", "tracebacks", "actors.messages", "states"}
    | {"hooks", "options", "binding", "files", "fingerprint"},
    # how runs are seen, and how actors get time and messages
    {"actors.mailbox", "actors.broadcast", "actors.family", "actors.lane", "context"}
    | {"cache_policies", "definition", "dispatch", "fanout"}
    | {"executors.job", "executors.thread", "handles", "logging", "registry", "runs"}
    | {"runtime", "settings", "statistics", "streams", "subscription", "upstream"},
    {"actors.run", "actors.hook", "actors.supervisor", "executors", "journal"},
    # opens and closes the actor tree, and performs runs in it
    {"actors.body", "calls", "host", "placement", "shutdown"}
    | {"recording", "recovery", "termination"}
    | {"actors.ending", "actors.flights", "actors.stores"}
    | {"actors.task_transaction", "actors.transaction"},
    # what users write
    {"flows", "tasks", "client", "blocks", "caching", "results", "transactions"},
    {"__init__", "__main__", "bench", "cli", "server", "testing"},
]
ISOLATED = LAYERS[2]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}


def unit_of(name: str) -> str | None:
    """Find the unit that *name*, dotted below engine, belongs to."""
    while name and name not in LEVEL:
        name = name.rpartition(".")[0]
    return name or None


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported from engine at run time, at any depth of the code."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue  # types may be named upwards: nothing is imported for them
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, below = name.partition(".")
            if package == "engine":
                yield below if "." in below or unit_of(below) else "__init__"
        yield from imports(node)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=str)
def test_imports_point_down(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    wanted = set(imports(ast.parse(path.read_text("utf-8"))))
    unit = unit_of(name)
    if unit is None:
        assert path.name == "__init__.py", f"give engine.{name} a layer in LAYERS"
        assert not wanted, f"engine.{name} is a bare package: it imports nothing"
        return
    # What has no layer is left out here: its own case fails.
    for other in filter(None, map(unit_of, wanted)):
        if other == unit:
            continue
        assert LEVEL[other] <= LEVEL[unit], f"{name} imports {other}, which is above it"
        if unit in ISOLATED:
            assert other not in ISOLATED, f"{name} and {other} talk in messages"
