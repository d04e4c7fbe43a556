"""Print the size and the imports of the code: `python -m tests.structure`."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engines", "demo")
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


@cache
def modules() -> dict[str, Path]:
    """Return every module of the product by name, packages included."""
    paths = [ROOT / "app.py"]
    for package in PACKAGES:
        paths += sorted((ROOT / package).rglob("*.py"))
    found = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def list_imports(name: str, at_import: bool = False) -> set[str]:
    """Return the modules of the product that one of them imports.

    `at_import`: only those that importing it imports, so none in functions or for types alone.
    """
    tree = ast.parse(modules()[name].read_text())
    found: set[str] = set()
    for node in _walk(tree, at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.add(module if module in modules() else node.module)
    return {module for module in found if module in modules() and module != name}


def _walk(tree: ast.AST, at_import: bool) -> list[ast.AST]:
    if not at_import:
        return list(ast.walk(tree))
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        nodes += [child, *_walk(child, at_import)]
    return nodes


def list_foreign_imports() -> list[str]:
    """Return imports of the tests from the product."""
    found = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found += [f"{name} -> {n}" for n in names if n.split(".")[0] == "tests"]
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                found += [f"{name} names {text}"] if text.startswith("tests.") else []
    return found


def list_cycles() -> list[str]:
    """Return import cycles, each as `a -> b -> a`; a package counts apart from its modules."""
    cycles: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycles.append(" -> ".join((*path[path.index(name) :], name)))
            return
        if name in done:
            return
        for module in sorted(list_imports(name)):
            visit(module, (*path, name))
        done.add(name)

    for name in modules():
        visit(name, ())
    return cycles


def find_longest_chain(start: str = "app") -> tuple[str, ...]:
    """Return the longest chain of imports that importing `start` sets off."""

    chains: dict[str, tuple[str, ...]] = {}

    def chain(name: str) -> tuple[str, ...]:
        if name not in chains:
            chains[name] = (name,)  # where there is a cycle, it ends here
            below = [chain(module) for module in sorted(list_imports(name, at_import=True))]
            chains[name] = (name, *max(below, key=len, default=()))
        return chains[name]

    return chain(start)


def count_lines(*patterns: str) -> int:
    """Return the lines of all files that match the patterns."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sum(len(path.read_text().splitlines()) for path in paths if path.is_file())


def list_long_files() -> list[str]:
    """Return files of the product and the tests with too many lines."""
    paths = [*modules().values(), *(ROOT / "engines").rglob("*.mojo"), *list_tests()]
    counted = [(len(path.read_text().splitlines()), path) for path in paths]
    return [f"{path.relative_to(ROOT)}: {n}" for n, path in counted if n > LONGEST_FILE]


def list_tests() -> list[Path]:
    """Return the tests' modules."""
    return list((ROOT / "tests").rglob("*.py"))


def list_long_functions() -> list[str]:
    """Return functions of the product with too many lines."""
    found = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found.append(f"{name}.{node.name}: {lines}")
    return found


def main() -> None:
    """Print each figure with its target."""
    python = count_lines("app.py", "engines/**/*.py", "demo/**/*.py")
    mojo = count_lines("engines/**/*.mojo")
    page = count_lines("assets/*.css", "assets/*.js", "demo/templates/*.html")
    real = [name for name, path in modules().items() if path.name != "__init__.py"]
    chain = find_longest_chain()
    print(f"product: {python + mojo + page} lines (13,000): Python {python}, Mojo {mojo}, ", end="")
    print(f"css, js and templates {page}")
    print(f"modules in engines/ and demo/: {len(real) - 1} (60)")
    print(f"longest import chain from app.py: {len(chain)} (10): {' -> '.join(chain)}")
    print(f"tests: {count_lines('tests/**/*.py')} lines (9,000)")
    for title, found in (
        (f"files over {LONGEST_FILE} lines", list_long_files()),
        (f"functions over {LONGEST_FUNCTION} lines", list_long_functions()),
        ("import cycles", list_cycles()),
        ("imports of the tests from the product", list_foreign_imports()),
    ):
        print(f"{title}: {len(found)} (0)", *found, sep="\n    ")


if __name__ == "__main__":
    main()
