"""The house stands: imports run downhill, nothing is too long, and nothing brings torch or TensorFlow."""

import ast
import collections
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fae_jax"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.relative_to(PACKAGE).parts)
FLOORS = {
    **dict.fromkeys(("errors", "files", "kinds", "section", "nn", "weights"), 0),
    **dict.fromkeys(("encoders", "extractors", "autoencoder", "diffusion", "losses"), 1),
    **dict.fromkeys(("tokenizers", "conditions", "generators", "data", "parallel"), 2),
    **dict.fromkeys(("config", "bundle", "model", "parts", "training", "workdir"), 3),
    "stages": 4,
    **dict.fromkeys(("evaluation", "report", "export", "sweeps", "compiler", "launchers"), 5),
    **dict.fromkeys(("cli", "commands"), 6),
    **dict.fromkeys(("__init__", "__main__"), 7),  # the doors: `import fae_jax` and `python -m fae_jax`
}
# On one floor, and still one above the other.
STAIRS = {
    ("kinds", "files"),
    ("nn", "section"),
    ("weights", "files"),
    ("extractors", "encoders"),
    ("losses", "extractors"),
    ("data", "parallel"),
    ("tokenizers", "data"),
    ("tokenizers", "parallel"),
    ("generators", "conditions"),
    ("bundle", "config"),
    ("bundle", "parts"),
    ("model", "parts"),
    ("workdir", "config"),
    ("sweeps", "evaluation"),
    ("sweeps", "report"),
    ("sweeps", "launchers"),
    ("commands", "cli"),
    ("__main__", "cli"),
}
FORBIDDEN = ("torch", "tensorflow")


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


@cache
def imports(path: Path, lazy: bool) -> frozenset[str]:
    """Modules that a file imports, those inside functions too if `lazy`; never those for type checkers."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not lazy:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update({name if name in MODULES else node.module for name in names})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return frozenset(found)


MODULES = {module(path): path for path in FILES}


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} <= FLOORS.keys()


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_downhill(path: Path):
    here = room(module(path))
    if here == "__init__":
        assert {name for name in imports(path, lazy=False) if name.startswith("fae_jax")} == set()
        return
    for name in imports(path, lazy=True):
        there = room(name) if name.startswith("fae_jax.") else here
        allowed = there == here or FLOORS[there] < FLOORS[here] or (here, there) in STAIRS
        assert allowed, f"{module(path)} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[there]})"


def test_no_verb_imports_another():
    verbs = [path for path in FILES if room(module(path)) == "commands" and path.stem != "__init__"]
    assert len(verbs) > 10
    for path in verbs:
        others = {name for name in imports(path, lazy=True) if name.startswith("fae_jax.commands.")}
        assert not others, f"{path} imports {others}"


def test_there_are_no_circles():
    graph = {
        name: {other for other in imports(path, lazy=False) if other in MODULES} for name, path in MODULES.items()
    }
    settled: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name not in settled:
            for other in graph[name]:
                visit(other, (*way, name))
            settled.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=module)
def test_modules_say_what_they_are_and_import_neither_torch_nor_tensorflow(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())) or not path.read_text().strip(), "no docstring"
    assert not {name for name in imports(path, lazy=True) if name.split(".")[0] in FORBIDDEN}


def test_no_file_is_too_long_and_most_are_short():
    folders = [ROOT / name for name in ("fae_jax", "tests", "benchmarks", "configs", "launch")]
    lengths = {path: len(path.read_text().splitlines()) for folder in folders for path in folder.rglob("*.py")}
    assert not {str(path): length for path, length in lengths.items() if length > 700}
    assert not [path for path in lengths if path.name == "utils.py"]
    own = sorted(lengths[path] for path in FILES)
    assert own[len(own) // 2] <= 200
    assert own[-1] <= 450
    folders = collections.Counter(path.parent for path in FILES)
    assert not {str(folder): count for folder, count in folders.items() if count > 18 and folder.name != "evaluation"}


def test_importing_everything_brings_neither_torch_nor_tensorflow():
    names = [name for name in MODULES if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_is_light():
    code = "import sys, fae_jax; print([name for name in ('jax', 'flax', 'grain') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
