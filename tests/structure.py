"""Print the size and the imports of the code: `python -m tests.structure`."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOJO, TESTS = ("engines/**/*.mojo",), ("tests/**/*.py",)
PYTHON = ("app.py", "engines/**/*.py", "demo/**/*.py")
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


@cache
def modules() -> dict[str, Path]:
    """Return every module of the product by name, packages included."""
    paths = [path for each in PYTHON for path in sorted(ROOT.glob(each))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


@cache
def parse(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(path.read_text())


def list_imports(name: str, at_import: bool = False) -> set[str]:
    """Return the modules of the product that one of them imports.

    `at_import`: only those that importing it imports, so none in functions or for types alone.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [parse(modules()[name])]
    while nodes:
        node = nodes.pop()
        if at_import and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.add(module if module in modules() else node.module)
    return {module for module in found if module in modules() and module != name}


def list_foreign_imports() -> list[str]:
    """Return the modules of the product that import from the tests, or name a module of theirs."""
    named = re.compile(r"""\b(from|import) tests\b|["']tests\.""")
    return [name for name, path in modules().items() if named.search(path.read_text())]


def find_cycle() -> list[str]:
    """Return the modules of an import cycle, if any; a package counts apart from its modules."""
    try:
        TopologicalSorter({name: list_imports(name) for name in modules()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def find_longest_chain(start: str = "app") -> tuple[str, ...]:
    """Return the longest chain of imports that importing `start` sets off; there is no cycle."""

    @cache
    def chain(name: str) -> tuple[str, ...]:
        below = [chain(module) for module in sorted(list_imports(name, at_import=True))]
        return (name, *max(below, key=len, default=()))

    return chain(start)


def count_lines(*patterns: str) -> dict[str, int]:
    """Return the lines of every file that matches the patterns, by its path."""
    paths = {path for each in patterns for path in ROOT.glob(each) if path.is_file()}
    counted = {path: len(path.read_text().splitlines()) for path in sorted(paths)}
    return {str(path.relative_to(ROOT)): n for path, n in counted.items()}


def list_long_files() -> list[str]:
    """Return files of the product and the tests with too many lines."""
    counted = count_lines(*PYTHON, *MOJO, *TESTS).items()
    return [f"{path}: {n}" for path, n in counted if n > LONGEST_FILE]


def list_long_functions() -> list[str]:
    """Return functions of the product with too many lines."""
    return [
        f"{name}.{node.name}: {lines}"
        for name, path in modules().items()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]


def main() -> None:
    """Print each figure with its target."""
    page = ("assets/*.css", "assets/*.js", "demo/templates/*.html")
    parts = (PYTHON, MOJO, page, TESTS)
    python, mojo, seen, tests = (sum(count_lines(*each).values()) for each in parts)
    real = [name for name, path in modules().items() if path.name != "__init__.py"]
    chain = find_longest_chain()
    print(f"product: {python + mojo + seen} lines (13,000): Python {python}, Mojo {mojo}, ", end="")
    print(f"css, js and templates {seen}")
    print(f"modules in engines/ and demo/: {len(real) - 1} (60)")
    print(f"longest import chain from app.py: {len(chain)} (10): {' -> '.join(chain)}")
    print(f"tests: {tests} lines (9,000)")
    for title, found in (
        (f"files over {LONGEST_FILE} lines", list_long_files()),
        (f"functions over {LONGEST_FUNCTION} lines", list_long_functions()),
        ("modules in an import cycle", find_cycle()),
        ("imports of the tests from the product", list_foreign_imports()),
    ):
        print(f"{title}: {len(found)} (0)", *found, sep="\n    ")


if __name__ == "__main__":
    main()
