"""What the documents name is there: files, folders, modules, targets of make, links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", ROOT / "data" / "README.md"]
    + [path for folder in ("docs", "deploy") for path in (ROOT / folder).rglob("*.md")]
)
SOURCE = r"[\w./-]+\.(?:py|md|toml|h|cuh|cu|cpp|js)"
FOLDERS = ("lstfe/", "deploy/", "pipelines/", "benchmarks/", "tests/", "docs/")
MADE_ON_A_GPU = {"docs/benchmarks/gpu-plugin.json", "docs/benchmarks/gpu-streaming.json"}
"""What `make gpu-check` writes."""


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def quoted_words(document: str) -> list[str]:
    """Return the words that stand in backticks, but for paths with a placeholder, like `pipelines/NAME.py`."""
    words = [
        word.strip("(),;:'\"")
        for text in re.findall(r"`([^`\n]+)`", text_of(document))
        for word in text.split()
    ]
    return [word for word in words if not re.search(r"\b[A-Z]{3,}\b", word.replace("README.md", ""))]


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Return every file of the project, without what is built, rendered or trained."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def is_there(name: str, files: list[str]) -> bool:
    """Say whether a path is one of the files, or the last parts of one: `service/streams.py`."""
    return any(file == name or file.endswith(f"/{name}") for file in files)


def module_is_there(name: str) -> bool:
    """Say whether a dotted name is a module, a package, or something in a module."""
    parts = name.split(".")
    places = [ROOT.joinpath(*parts[:n]) for n in range(2, len(parts) + 1)]
    return any(place.with_suffix(".py").is_file() for place in places) or places[-1].is_dir()


def test_parts_of_a_path_are_compared_whole() -> None:
    assert is_there("b/c.py", ["a/b/c.py"])
    assert not is_there("c.py", ["a/abc.py", "c.pyi"])


def test_names_in_modules_are_found_and_wrong_modules_are_not() -> None:
    assert all(map(module_is_there, ("deploy.graphs", "deploy.graphs.Form", "deploy.service")))
    assert not module_is_there("deploy.grafs.Form")


def test_there_are_documents_with_words_to_look_up() -> None:
    assert {"README.md", "docs/usage.md", "deploy/plugin/README.md"} <= set(DOCUMENTS)
    assert {"backbone.py", "lstfe/model/"} <= set(quoted_words("README.md"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_source_files_that_a_document_names_are_there(document: str, files: list[str]) -> None:
    named = [word for word in quoted_words(document) if re.fullmatch(SOURCE, word)]
    assert [name for name in named if not is_there(name, files)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_below_the_source_folders_are_there(document: str) -> None:
    paths = [
        word
        for word in quoted_words(document)
        if word.startswith(FOLDERS) and re.fullmatch(r"[\w./-]+", word)
    ]
    assert [path for path in paths if path not in MADE_ON_A_GPU and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_that_a_document_names_are_there(document: str) -> None:
    name = r"(?:python -m |from |import |`)((?:lstfe|deploy|pipelines|benchmarks)(?:\.\w+)+)"
    assert [found for found in re.findall(name, text_of(document)) if not module_is_there(found)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_of_make_that_a_document_names_are_there(document: str) -> None:
    targets = re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", text_of(document), re.MULTILINE)
    assert set(targets) - set(re.findall(r"^([a-z][a-z-]*):", text_of("Makefile"), re.MULTILINE)) == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    near = [link.partition("#")[0] for link in links if not link.startswith(("http:", "https:", "#"))]
    assert [link for link in near if not ((ROOT / document).parent / link).exists()] == []
