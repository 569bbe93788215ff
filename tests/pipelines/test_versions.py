"""Prefect 3.8 declares its limits too widely: with newer FastAPI or SQLAlchemy it installs, then fails."""

from __future__ import annotations

from datetime import timedelta
from importlib import metadata

import pytest


def _major_minor(package: str) -> tuple[int, int]:
    major, minor = metadata.version(package).split(".")[:2]
    return int(major), int(minor)


def test_the_installed_versions_are_within_prefects_true_limits() -> None:
    assert _major_minor("fastapi") < (0, 151)
    assert _major_minor("sqlalchemy") < (2, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_prefects_server_runs_a_flow_and_inserts_scheduled_runs() -> None:
    """FastAPI >= 0.151 breaks every flow run; SQLAlchemy >= 2.1 what inserts scheduled runs, silently."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    @flow
    def nothing() -> int:
        return 7

    assert nothing() == 7
    hourly = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=1)), active=True)
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(nothing)
        deployment = client.create_deployment(flow_id, name="hourly", schedules=[hourly])
        client._client.post(f"/deployments/{deployment}/schedule").raise_for_status()
        runs = client.read_flow_runs()
    assert [run for run in runs if run.deployment_id == deployment]
