import ast
import subprocess
import sys
from pathlib import Path

import pytest

import restorekit

PACKAGE = Path(restorekit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ENTRANCES = {"restorekit", "restorekit.__main__"}
LAYERS = {
    "errors": 0,
    "ops": 1,
    "image": 2,
    "tiling": 2,
    "degradations": 3,
    "losses": 3,
    "metrics": 3,
    "models": 3,
    "io": 3,
    "datasets": 4,
    "hub": 4,
    "tasks": 4,
    "engine": 5,
    "cli": 6,
}


def module_name(path: Path) -> str:
    parts = ("restorekit", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str) -> str:
    return module.split(".")[1]


def imported(nodes: list[ast.AST]) -> set[str]:
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            assert node.module is not None
            if node.module == "restorekit":
                modules |= {f"restorekit.{alias.name}" for alias in node.names}
            else:
                modules.add(node.module)
    return modules


def all_imports(path: Path) -> set[str]:
    return imported(list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def start_up_imports(path: Path) -> set[str]:
    """Return what importing the file imports: not the bodies of functions, nor TYPE_CHECKING."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    nodes = []
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
    return imported(nodes)


def packages(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_imports_its_own_part_or_a_lower_layer(path: Path) -> None:
    module = module_name(path)
    if module in ENTRANCES:
        return
    own = part(module)
    for other in all_imports(path):
        if not other.startswith("restorekit."):
            continue
        if other == "restorekit.__version__":
            continue
        target = part(other)
        assert target == own or LAYERS[target] < LAYERS[own], f"{module} must not import {other}"


def test_every_part_has_a_layer() -> None:
    parts = {part(module_name(path)) for path in FILES if module_name(path) not in ENTRANCES}
    assert parts <= LAYERS.keys()


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_libraries_stay_in_their_place(path: Path) -> None:
    module = module_name(path)
    used = packages(all_imports(path))
    if not module.startswith("restorekit.cli"):
        assert not used & {"typer", "rich"}
    assert "click" not in used
    if module != "restorekit.io.raw":
        assert "rawpy" not in used
    if module.startswith(("restorekit.cli", "restorekit.tasks")) or module in ENTRANCES:
        assert "torch" not in packages(start_up_imports(path))


@pytest.mark.parametrize("module", ["restorekit", "restorekit.tasks", "restorekit.cli.app"])
def test_importing_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'numpy', 'rawpy'}} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "set()"


def test_the_entry_point_loads_no_other_library_before_it_heeds_signals() -> None:
    imports = start_up_imports(PACKAGE / "cli" / "main.py")
    assert packages(imports) <= sys.stdlib_module_names


def test_the_rule_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def f():\n    from restorekit.engine import restore\n"
    )
    assert all_imports(file) == {"typing", "torch", "restorekit.engine"}
    assert start_up_imports(file) == {"typing"}
