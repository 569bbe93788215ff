"""`lstfe doctor`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines import doctor
from pipelines.doctor import Finding, examine, is_fit, report


def _by_part(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.part: finding for finding in findings}


def test_nothing_found_is_fit_and_only_a_header() -> None:
    assert is_fit([])
    assert report([]) == "part  state  note"


def test_this_machine_is_fit_and_every_part_has_its_line(project: Path) -> None:
    findings = _by_part(examine(project))

    assert is_fit(list(findings.values())), report(list(findings.values()))
    assert findings.keys() >= {
        "python",
        "torch",
        "threads",
        "gpu",
        "tensorrt",
        "nvcc",
        "ffmpeg",
        "git",
        "disk",
    }
    assert findings.keys() >= {"dvc", "mlflow", "prefect", "fastapi", "sqlalchemy"}
    assert all(finding.note for finding in findings.values())


def test_a_missing_package_says_what_it_would_give(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "mlflow" else real(package))

    findings = examine(project)

    assert not is_fit(findings)
    assert _by_part(findings)["mlflow"].state == "missing"
    assert "run tracking" in _by_part(findings)["mlflow"].note


@pytest.mark.parametrize(
    ("package", "version", "effect"),
    [
        ("fastapi", "0.165.0", "every Prefect flow run fails"),
        ("sqlalchemy", "2.1.9", "scheduler starts nothing"),
    ],
)
def test_versions_that_prefect_installs_with_and_fails_at_are_named(
    monkeypatch: pytest.MonkeyPatch, project: Path, package: str, version: str, effect: str
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: version if name == package else real(name))

    finding = _by_part(examine(project))[package]

    assert finding.state == "warning"
    assert effect in finding.note


def test_a_copy_without_git_says_what_git_would_give(project: Path) -> None:
    shutil.rmtree(project / ".git")

    finding = _by_part(examine(project))["git"]

    assert finding.state == "absent"
    assert "dvc exp" in finding.note


def test_outside_of_a_project_only_the_project_is_absent() -> None:
    findings = examine(None)

    assert is_fit(findings)
    git = _by_part(findings)["git"]
    assert git.state == "absent"
    for command in ("detect", "bench", "engine", "score", "serve --bundle", "doctor"):
        assert command in git.note


def test_a_machine_that_only_detects_lacks_nothing_without_the_projects_packages(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    lacking = ("torch", "dvc", "mlflow", "prefect", "fastapi", "sqlalchemy", "tensorrt")
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in lacking else real(name))

    inside, outside = (_by_part(examine(root)) for root in (project, None))

    assert is_fit(list(outside.values()))
    assert [inside[name].state for name in lacking] == ["missing"] * 6 + ["absent"]
    assert "pip install 'lstfe[project]'" in inside["mlflow"].note
    assert "pip install 'lstfe[tensorrt]'" in inside["tensorrt"].note


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    usage = shutil.disk_usage(project)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    assert _by_part(examine(project))["disk"].state == "warning"
