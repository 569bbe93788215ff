from __future__ import annotations

import pytest

from pipelines.servers.programs import prefect_server


@pytest.mark.parametrize("port", [4200, 4300])
def test_prefects_pages_ask_the_server_that_shows_them(port: int) -> None:
    server = prefect_server({}, port)
    assert server.environment["PREFECT_SERVER_UI_API_URL"] == server.settings["PREFECT_API_URL"]
    assert server.settings["PREFECT_API_URL"] == f"http://127.0.0.1:{port}/api"
