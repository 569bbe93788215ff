"""The house keeps its floors: read from the source with ast, nothing is imported.

5  pipelines/
4  deploy/   lstfe/evaluation/
3  lstfe/training/   lstfe/stream.py
2  lstfe/model/   lstfe/data/   lstfe/visualize.py
1  boxes.py   config.py   errors.py   image_size.py   params.py   transfer.py   types.py   web_page.py
   whole_files.py   window.py
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lstfe", "deploy", "pipelines")
FLOORS = {
    "lstfe.boxes": 1,
    "lstfe.config": 1,
    "lstfe.errors": 1,
    "lstfe.image_size": 1,
    "lstfe.params": 1,
    "lstfe.transfer": 1,
    "lstfe.types": 1,
    "lstfe.web_page": 1,
    "lstfe.whole_files": 1,
    "lstfe.window": 1,
    "lstfe.model": 2,
    "lstfe.data": 2,
    "lstfe.visualize": 2,
    "lstfe.training": 3,
    "lstfe.stream": 3,
    "lstfe.evaluation": 4,
    "deploy": 4,
    "pipelines": 5,
}

ORCHESTRATION = {"prefect", "mlflow", "dvc"}
INFERENCE_LIBRARIES = {"onnx", "onnxruntime", "onnxscript", "tensorrt", "pycuda"}
TORCH = {"torch", "torchvision"}

FORBIDDEN_FILE_NAMES = {"utils", "util", "misc", "helpers", "common"}
FORBIDDEN_PREFIXES = ("do_", "process_", "handle_")
TORCH_FREE = (
    "lstfe/config.py",
    "lstfe/image_size.py",
    "lstfe/params.py",
    "lstfe/types.py",
    "lstfe/window.py",
    "lstfe/visualize.py",
    "lstfe/whole_files.py",
    "lstfe/data/video.py",
    "lstfe/data/frames.py",
    "lstfe/data/coco_video.py",
    "lstfe/data/prepared.py",
    "lstfe/evaluation/bootstrap.py",
    "lstfe/evaluation/confusion.py",
    "lstfe/evaluation/errors.py",
    "lstfe/evaluation/report/page.py",
    "lstfe/web_page.py",
    "lstfe/evaluation/protocols.py",
    "lstfe/evaluation/records.py",
    "lstfe/evaluation/curves.py",
    "lstfe/evaluation/misses.py",
    "deploy/runtime.py",
    "deploy/tensorrt/backend.py",
    "deploy/benchmark.py",
    "deploy/triton/model.py",
    "deploy/detect.py",
    "deploy/service/server.py",
    "deploy/service/decoder.py",
    "pipelines/cli.py",
    "pipelines/drift.py",
    "pipelines/evidence.py",
    "pipelines/footage_values.py",
    "pipelines/gate.py",
    "pipelines/registry.py",
    "pipelines/scoring.py",
)
MAX_LINES = 450
LONG_BY_NATURE = {
    "lstfe/config.py": 650,  # one flat list of settings, each with its sentence
}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def sources(*folders: str) -> list[Path]:
    """Return every Python file under the folders, relative to the root."""
    paths = [ROOT / folder for folder in folders]
    files = [file for path in paths for file in sorted(path.rglob("*.py"))]
    return [file.relative_to(ROOT) for file in files if "__pycache__" not in file.parts]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path, *, when_loaded: bool = False) -> set[str]:
    """Return the dotted names that a file imports: everywhere, or only what runs when it is loaded."""
    return names_imported(tree(path), when_loaded=when_loaded)


def names_imported(module: ast.Module, *, when_loaded: bool) -> set[str]:
    names: set[str] = set()
    for node in _nodes_run_on_load(module) if when_loaded else ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}, expected the full name"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _nodes_run_on_load(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _nodes_run_on_load(child)


def room(name: str) -> str | None:
    """Return the part of the house that a name lives in: `lstfe.data.video.read_video` -> `lstfe.data`."""
    parts = name.split(".")
    return next((name for n in (2, 1) if (name := ".".join(parts[:n])) in FLOORS), None)


def top_levels(path: Path, *, when_loaded: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports(path, when_loaded=when_loaded)}


@cache
def own_modules() -> dict[str, Path]:
    return {module_name(path): path for path in sources(*PACKAGES)}


def loaded_with(path: Path) -> set[Path]:
    """Return every file of ours that is loaded when this one is, itself included."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        names = imports(current, when_loaded=True) | {module_name(current)}
        parents = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
        waiting += [own_modules()[name] for name in parents if name in own_modules()]
    return seen


def test_imports_in_functions_and_for_types_do_not_run_on_load() -> None:
    module = ast.parse(
        "import a\nfrom b import c\nif TYPE_CHECKING:\n    import d\n"
        "def f():\n    import e\nclass G:\n    import h\n"
        "try:\n    import i\nexcept ImportError:\n    import j\n"
    )
    assert names_imported(module, when_loaded=True) == {"a", "b", "b.c", "h", "i", "j"}
    assert names_imported(module, when_loaded=False) == {"a", "b", "b.c", "d", "e", "h", "i", "j"}


# ------------------------------------------------------------------------------------------------ floors


def test_every_file_has_a_floor() -> None:
    names = [module_name(path) for path in sources(*PACKAGES)]
    assert len(names) > 40
    assert [name for name in names if name != "lstfe" and room(name) is None] == []


def test_imports_go_down() -> None:
    upward = []
    for path in sources(*PACKAGES):
        floor = FLOORS.get(room(module_name(path)) or "", 0)
        names = sorted(name for name in imports(path) if (there := room(name)) and FLOORS[there] > floor)
        upward += [f"{path} (floor {floor}) imports {name}" for name in names]
    assert upward == []


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {name: set() for name in FLOORS}
    for path in sources(*PACKAGES):
        here = room(module_name(path))
        if here is not None:
            arrows[here] |= {there for name in imports(path) if (there := room(name)) and there != here}
    assert in_circles(arrows) == []


def test_modules_do_not_load_each_other_in_a_circle() -> None:
    arrows = {
        name: {other for other in imports(path, when_loaded=True) if other in own_modules() and other != name}
        for name, path in own_modules().items()
    }
    assert in_circles(arrows) == []


def in_circles(arrows: dict[str, set[str]]) -> list[str]:
    """Return what is left after taking away, again and again, whatever points at nothing that is left."""
    left = dict(arrows)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


# --------------------------------------------------------------------------------------------- libraries


@pytest.mark.parametrize(
    ("folders", "forbidden"),
    [
        (("lstfe", "deploy"), ORCHESTRATION),
        (("lstfe",), INFERENCE_LIBRARIES),
    ],
    ids=["lstfe and deploy know no orchestration", "lstfe knows no deployment library"],
)
def test_some_libraries_are_for_the_upper_floors(folders: tuple[str, ...], forbidden: set[str]) -> None:
    found = {path.as_posix(): top_levels(path) & forbidden for path in sources(*folders)}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        (
            "mlflow",
            {
                f"pipelines/{name}.py"
                for name in ("mlflow_store", "mlflow_runs", "tracked_model", "model_versions")
            },
        ),
        ("prefect", {"pipelines/flows.py", "pipelines/detection_flow.py"}),
    ],
)
def test_each_tool_has_its_importers_and_no_other(library: str, importers: set[str]) -> None:
    found = {path.as_posix() for path in sources(*PACKAGES) if library in top_levels(path)}
    assert found == importers


def test_pipelines_hold_no_tensors() -> None:
    forbidden = TORCH | INFERENCE_LIBRARIES
    found = {path.as_posix(): top_levels(path, when_loaded=True) & forbidden for path in sources("pipelines")}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("path", TORCH_FREE)
def test_these_load_no_torch_through_any_import(path: str) -> None:
    loaded = sorted(loaded_with(Path(path)))
    assert [str(file) for file in loaded if top_levels(file, when_loaded=True) & TORCH] == []


def test_the_command_line_loads_no_orchestration_tool() -> None:
    loaded = sorted(loaded_with(Path("pipelines/cli.py")))
    assert [str(file) for file in loaded if top_levels(file, when_loaded=True) & ORCHESTRATION] == []


def test_the_deployed_runtime_really_runs_without_torch() -> None:
    modules = "deploy.runtime, deploy.detect, deploy.service.server, lstfe.evaluation.misses"
    code = f"import sys; sys.modules['torch'] = None; import {modules}"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


# ------------------------------------------------------------------------------------------------ reading


def test_no_file_outgrows_its_reader() -> None:
    lengths = {
        path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in sources(*PACKAGES, "tests")
    }
    too_long = {path: n for path, n in lengths.items() if n > LONG_BY_NATURE.get(path, MAX_LINES)}
    assert too_long == {}, "what are they hiding?"


def test_everything_public_says_what_it_is_for() -> None:
    silent = []
    for path in sources(*PACKAGES):
        if tree(path).body and not ast.get_docstring(tree(path)):
            silent.append(f"{path}")
        silent += [f"{path}: {name}" for name, node in _public(tree(path)) if not ast.get_docstring(node)]
    assert silent == [], "without a docstring"


def _public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Documented]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Documented) or child.name.startswith("_"):
            continue
        yield prefix + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from _public(child, f"{prefix}{child.name}.")


def test_everything_is_annotated() -> None:
    bare = []
    for path in sources(*PACKAGES):
        for node in _functions(path):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            if missing or node.returns is None:
                bare.append(f"{path}: {node.name}({', '.join(missing)})")
    assert bare == []


def test_names_say_what_is_done() -> None:
    vague = [
        str(path) for path in sources(*PACKAGES) if FORBIDDEN_FILE_NAMES & set(path.with_suffix("").parts)
    ]
    for path in sources(*PACKAGES):
        vague += [
            f"{path}: {node.name}"
            for node in _functions(path)
            if node.name.lstrip("_").startswith(FORBIDDEN_PREFIXES)
        ]
    assert vague == []


def test_annotations_are_lazy_everywhere() -> None:
    eager = []
    for path in sources(*PACKAGES, "tests"):
        body = tree(path).body
        lazy = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in body)
        if not lazy and any(not isinstance(node, ast.Expr) for node in body):
            eager.append(str(path))
    assert eager == [], "without `from __future__ import annotations`"


def test_tests_of_the_library_mirror_its_tree() -> None:
    mirrored = {
        path: Path(*path.parts[1:-1], path.name.removeprefix("test_"))
        for path in sources("tests/lstfe")
        if path.name.startswith("test_")
    }
    assert {str(path) for path, tested in mirrored.items() if not (ROOT / tested).is_file()} == set()


def test_names_of_tests_are_sentences() -> None:
    short = [
        f"{path}: {node.name}"
        for path in sources("tests")
        for node in _functions(path)
        if node.name.startswith("test_") and len(node.name.split("_")) < 4
    ]
    assert short == []


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
