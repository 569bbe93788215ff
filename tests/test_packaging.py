"""What `pip install lstfe` brings, and what its extras add: held against what the code imports."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines.command import extra_with

from .test_architecture import PACKAGES, ROOT, loaded_with, sources, top_levels

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_MODULES = {"pillow": "PIL", "ruamel.yaml": "ruamel", "python-multipart": "python_multipart"}
_BROUGHT_ALONG = {
    "anyio": "fastapi",
    "starlette": "fastapi",
    "h11": "uvicorn",
    "pandas": "mlflow",
    "scmrepo": "dvc",
}
_OF_THE_MACHINE = {"triton_python_backend_utils", "prefect_dask", "prefect_ray", "pynvml"}
"""Modules that Triton has, or whose extras the code names where it needs them."""


def _modules(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}
    return {_MODULES.get(name, name.replace("-", "_")) for name in names} - {"lstfe"}


_BASE = _modules(_PROJECT["dependencies"])


def _foreign(names: set[str]) -> set[str]:
    return names - set(PACKAGES) - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "path",
    [
        "pipelines/cli.py",
        "pipelines/doctor.py",
        "deploy/detect.py",
        "deploy/benchmark.py",
        "deploy/onnx_backend.py",
    ],
)
def test_a_machine_that_only_detects_needs_the_base_alone(path: str) -> None:
    loaded = (top_levels(file, when_loaded=True) for file in loaded_with(Path(path)))

    assert _foreign(set().union(*loaded)) - _BASE == set()


def test_the_service_needs_its_extra_and_no_other() -> None:
    brought = _BASE | _modules(_PROJECT["optional-dependencies"]["service"])
    loaded = set().union(
        *(top_levels(file, when_loaded=True) for file in loaded_with(Path("deploy/service/server.py")))
    )

    assert {_BROUGHT_ALONG.get(name, name) for name in _foreign(loaded)} - brought == set()


def test_everything_else_that_is_imported_has_an_extra_that_its_absence_names() -> None:
    imported = _foreign(set().union(*(top_levels(path) for path in sources(*PACKAGES)))) - _OF_THE_MACHINE

    for module in imported - _BASE:
        extra = extra_with(module)
        assert extra is not None, module
        assert _BROUGHT_ALONG.get(module, module) in _modules(_PROJECT["optional-dependencies"][extra])
    assert [module for module in _BASE if extra_with(module)] == []


def test_a_command_of_the_project_names_the_extra_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"))
    code = (
        "import sys; sys.modules['prefect'] = None; sys.argv[1:] = ['ops', 'retrain'];"
        "from pipelines.cli import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert found.returncode == 2
    assert found.stderr == "error: prefect is not installed and this needs it: pip install 'lstfe[project]'\n"
