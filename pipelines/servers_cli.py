"""`lstfe ops up|status|down|schedule`: the servers of this machine and the schedules of the flows."""

# What a command needs is imported when it runs, so that `lstfe --help` is there at once.

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.paths import enter_project

servers_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Servers of this machine, and schedules."
)

Port = typer.Option(min=1, max=65535)


@servers_app.command()
def up(
    prefect_port: Annotated[int, Port] = 4200,
    mlflow_port: Annotated[int, Port] = 5000,
    worker_port: Annotated[int, Port] = 8080,
    serve: Annotated[bool, typer.Option("--serve", help="Also run `lstfe serve`.")] = False,
    serve_port: Annotated[int, Port] = 8700,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay and supervise, as a service of systemd does.")
    ] = False,
) -> None:
    """Start Prefect's server and worker and MLflow's server, supervised, and wait until they answer."""
    from pipelines.servers.control import status as status_of
    from pipelines.servers.control import up as start
    from pipelines.servers.programs import OpsSettings

    root = enter_project()
    settings = OpsSettings(
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        worker_port=worker_port,
        serve=serve,
        serve_port=serve_port,
    )
    if foreground:
        from pipelines.servers.supervisor import supervise

        supervise(root, settings)
        return
    start(root, settings, report=print)
    print(status_of(root)[0])


@servers_app.command()
def status() -> None:
    """Show what runs, where, how it feels and what it takes; exit code 1 unless all is healthy."""
    from pipelines.servers.control import status as status_of

    table, is_healthy = status_of(enter_project())
    print(table)
    if not is_healthy:
        raise typer.Exit(1)


@servers_app.command()
def down() -> None:
    """End the servers and all that they started; trainings save first. Done twice, the second does nothing."""
    from pipelines.servers.control import down as end

    print("all ended" if end(enter_project()) else "nothing ran")


@servers_app.command()
def schedule(
    interval: Annotated[
        float | None, typer.Option(help="Run every flow every so many seconds instead, to see them run.")
    ] = None,
) -> None:
    """Register the schedules of prefect.yaml with the Prefect server; again after a change to the file."""
    from pipelines.servers.schedule import register
    from pipelines.tables import text_table

    deployments = register(enter_project(), interval_seconds=interval)
    print(
        text_table(("deployment", "runs"), [(item.name, ", ".join(item.schedules)) for item in deployments])
    )


if __name__ == "__main__":
    from pipelines.command import run_command

    run_command(servers_app)
