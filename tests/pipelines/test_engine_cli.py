from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lstfe.errors import UserError
from pipelines.cli import app
from pipelines.engine_cli import build_engine


def test_the_commands_are_there_with_their_help() -> None:
    result = CliRunner().invoke(app, ["engine", "--help"])
    assert result.exit_code == 0
    for name in ("build", "verify", "triton"):
        assert name in result.output


def test_a_size_that_is_none_is_refused_before_the_bundle_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--image-size '1080': expected HEIGHTxWIDTH"):
        build_engine(tmp_path / "no bundle", image_size=["480x640", "1080"])
