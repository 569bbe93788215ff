"""`lstfe ops`: who is champion, and how that changes; docs/operations.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.paths import enter_project

ops_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Retrain, promote, roll back; the servers and schedules of this machine.",
)


@ops_app.command()
def retrain(
    force: Annotated[bool, typer.Option("--force", help="Train even though there is no new data.")] = False,
) -> None:
    """Train a challenger on new data, and make it champion if the gate lets it; runs the flow now."""
    from pipelines.environment import apply_default_settings

    root = enter_project()
    apply_default_settings()
    from pipelines.demo import explained_unreachable_server
    from pipelines.flows import retrain as retrain_flow

    with explained_unreachable_server():
        state: Any = retrain_flow(root, force=force, return_state=True)
    _end_like(state)


@ops_app.command()
def evaluate(
    footage: Annotated[
        Path | None, typer.Argument(help="Folder of recent videos; that of params.yaml unless given.")
    ] = None,
) -> None:
    """Compare incoming footage with what the champion knows; exit code 1 for drift."""
    from pipelines.environment import apply_default_settings

    footage = footage.resolve() if footage else None
    root = enter_project()
    apply_default_settings()
    from pipelines.demo import explained_unreachable_server
    from pipelines.flows import evaluate_champion

    with explained_unreachable_server():
        state: Any = evaluate_champion(root, footage, return_state=True)
    _end_like(state)
    if state.name == "Drift":
        raise typer.Exit(1)


@ops_app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Version of the registered model; `lstfe ops history`.")],
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "by hand",
) -> None:
    """Make a version champion, whatever the gate said of it."""
    from pipelines.registry import promote as promote_version

    champion = promote_version(version, enter_project(), reason=reason)
    print(f"champion is version {champion.version}: {champion.bundle}")


@ops_app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "by hand",
) -> None:
    """Make the champion before the present one champion again."""
    from pipelines.registry import rollback as roll_back

    champion = roll_back(enter_project(), reason=reason)
    print(f"champion is version {champion.version} again: {champion.bundle}")


@ops_app.command()
def history() -> None:
    """Show every promotion, rollback and refusal, newest first."""
    from pipelines.paths import champion_pointer
    from pipelines.registry import history as read_history
    from pipelines.registry import read_champion
    from pipelines.tables import text_table

    root = enter_project()
    champion = read_champion(root)
    rows = [
        [item.time, item.action, item.version, item.previous or "-", item.reason]
        for item in reversed(read_history(root))
    ]
    if rows:
        print(text_table(("time", "action", "version", "champion before", "reason"), rows))
    print(
        f"champion: version {champion.version}, {champion.bundle}"
        if champion
        else f"no champion yet: {champion_pointer(root)} is made by the first promotion"
    )


def _end_like(state: Any) -> None:
    """Print what a flow's last state says; a flow that went wrong ends the command as its error would."""
    from lstfe.errors import UserError

    if state.is_completed():
        print(f"{state.name}: {state.message}")
        return
    if state.is_cancelled():
        raise UserError(str(state.message))
    state.result()
