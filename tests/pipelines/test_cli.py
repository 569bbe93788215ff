"""The command line: exit codes, one-line errors, and how soon it is there."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from lstfe.errors import UserError
from pipelines import cli

ROOT = Path(__file__).parents[2]


def _lstfe(*arguments: str, cwd: Path, module: str = "pipelines.cli") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def _seconds_of_children() -> float:
    """Processor time, which unlike the clock does not depend on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    result = _lstfe(cwd=tmp_path)

    assert "reproduce" in result.stdout + result.stderr


def test_help_needs_none_of_the_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['lstfe', '--help']\n"
        "from pipelines.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'prefect', 'dvc', 'numpy', 'av', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    started = _seconds_of_children()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert result.returncode == 0, result.stderr
    assert _seconds_of_children() - started < 0.5


@pytest.mark.parametrize("command", ["demo", "reproduce", "runs"])
def test_outside_of_a_project_a_command_says_where_to_go(tmp_path: Path, command: str) -> None:
    result = _lstfe(command, cwd=tmp_path)

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "run the command in the project's folder" in result.stderr


def test_the_version_is_said() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])

    assert (result.exit_code, result.output) == (0, f"lstfe {version('lstfe')}\n")


def test_an_unknown_command_exits_with_2(tmp_path: Path) -> None:
    assert _lstfe("fly", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("detect", "nothing.mp4", "--bundle", "nowhere"), "nowhere"),
        (("detect", "nothing.mp4", "--backend", "abacus"), "abacus"),
        (("data", "import", "fl-drones", "nowhere", "data/raw/x"), "nowhere"),
        (("data", "show", "nowhere"), "nowhere/annotations: holds none of"),
        (("data", "check", "data/raw/nowhere"), "params.yaml: no such file"),
    ],
)
def test_bad_input_is_one_clear_error_without_a_traceback(
    project: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = _lstfe(*arguments, cwd=project)

    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_video_is_shown_in_the_folder_of_its_data_set(project: Path, tiny_raw: Path) -> None:
    result = CliRunner().invoke(cli.app, ["data", "show", str(tiny_raw), "--video", "Video_001"])

    assert result.exit_code == 0, result.output
    assert "artifacts/shown/raw/Video_001_preview.mp4" in result.output
    folder = project / "artifacts" / "shown" / "raw"
    assert sorted(path.name for path in folder.iterdir()) == [
        "Video_001_preview.mp4",
        "Video_001_smallest.png",
    ]


def test_a_video_is_shown_where_the_user_says(project: Path, tiny_raw: Path) -> None:
    result = CliRunner().invoke(cli.app, ["data", "show", str(tiny_raw), "--output", "here"])

    assert result.exit_code == 0, result.output
    assert result.output.startswith("no --video given: Video_")
    assert len(list((project / "here").iterdir())) == 2
    assert not (project / "artifacts").exists()


def _run_stage(stage: str) -> None:
    """Run a stage in this process: importing torch anew for each test would take minutes."""
    getattr(import_module(f"pipelines.{stage}"), stage)()


@pytest.mark.parametrize("stage", ["render", "prepare", "train"])
def test_without_parameters_a_stage_says_so(project: Path, stage: str) -> None:
    with pytest.raises(UserError, match=r"params.yaml: no such file"):
        _run_stage(stage)


@pytest.mark.parametrize("stage", ["evaluate", "export", "deploy"])
def test_without_a_trained_model_a_stage_says_so(project: Path, stage: str) -> None:
    shutil.copy(ROOT / "params.yaml", project)

    with pytest.raises(UserError, match=r"artifacts/trained/.*: no such file"):
        _run_stage(stage)


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("train", "iteration", 600, "unknown key train.iteration"),
        ("train", "batch_size", "four", "train.batch_size"),
        ("train", "lr", -1, "train.lr must be > 0"),
        ("model", "preset", "huge", "model.preset must be one of"),
    ],
)
def test_wrong_parameters_are_refused_at_once(
    project: Path, section: str, name: str, value: object, message: str
) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params[section][name] = value
    yaml.dump(params, project / "params.yaml")

    with pytest.raises(UserError, match=message):
        _run_stage("train")


def test_a_stage_ends_with_the_message_alone_and_exit_code_2(project: Path) -> None:
    project.joinpath("params.yaml").write_text("train: {lr: fast}\n")

    result = _lstfe(cwd=project, module="pipelines.train")

    assert result.returncode == 2
    assert result.stderr.startswith("error: params.yaml: train.lr")
    assert result.stderr.count("\n") == 1


def test_doctor_works_anywhere(tmp_path: Path) -> None:
    result = _lstfe("doctor", cwd=tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "ffmpeg" in result.stdout
