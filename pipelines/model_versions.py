"""MLflow's model registry: the registered model `lstfe`, its versions, and who is champion among them.

Unlike tracking, which goes on without MLflow, a promotion needs it: what fails here raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstfe.errors import UserError, one_line
from pipelines.mlflow_store import Store, open_client, require_listener, tracking_uri
from pipelines.tracked_model import BUNDLE_VERSION, OLD_FOLDER, model_folder

MODEL = "lstfe"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)


class RegistryDown(UserError):
    """MLflow's registry cannot be reached or does not do as asked; worth another try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """One version of the registered model."""

    version: str
    run_id: str
    created: float
    """Seconds since 1970."""
    aliases: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


class ModelVersions:
    """The registry of one project; `root` says where its store lies unless MLFLOW_TRACKING_URI does."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: Any = None

    def all(self) -> list[ModelVersion]:
        """Return every version, newest first."""
        with self._client() as client:
            aliases: dict[str, list[str]] = {}
            for alias, version in _aliases(client).items():
                aliases.setdefault(version, []).append(alias)
            found = client.search_model_versions(f"name = '{MODEL}'")
        versions = [
            ModelVersion(
                version=str(item.version),
                run_id=str(item.run_id or ""),
                created=item.creation_timestamp / 1000,
                aliases=tuple(sorted(aliases.get(str(item.version), ()))),
                tags=dict(item.tags),
            )
            for item in found
        ]
        return sorted(versions, key=lambda item: -int(item.version))

    def enrol(self, run_id: str, tags: Mapping[str, str]) -> str:
        """Return the version of the run's model that `bundle.version` among the tags names.

        It is made now unless there is one with the same tags.
        """
        for version in self.all():
            if version.run_id == run_id and tags.items() <= version.tags.items():
                return version.version
        with self._client() as client:
            if not client.search_registered_models(f"name = '{MODEL}'"):
                client.create_registered_model(MODEL, description="The streaming detector that is deployed.")
            folder = model_folder(tags[BUNDLE_VERSION])
            if not client.list_artifacts(run_id, folder):  # deployed before each bundle had its own
                folder = OLD_FOLDER
            source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
            made = client.create_model_version(MODEL, source, run_id=run_id, tags=dict(tags))
            return str(made.version)

    def bundle_version(self, version: str) -> str | None:
        """Return the tag that says which bundle a version is; None where an old registry has none."""
        with self._client() as client:
            found = client.get_model_version(MODEL, version).tags.get(BUNDLE_VERSION)
        return None if found is None else str(found)

    def aliases(self) -> dict[str, str]:
        """Return alias -> version, for those that are set."""
        with self._client() as client:
            return _aliases(client)

    def set_aliases(self, wanted: Mapping[str, str | None]) -> None:
        """Let aliases point at versions, or (None) at nothing; what is so already is left alone."""
        with self._client() as client:
            present = _aliases(client)
            for alias, version in wanted.items():
                if version is None and alias in present:
                    client.delete_registered_model_alias(MODEL, alias)
                elif version is not None and present.get(alias) != version:
                    client.set_registered_model_alias(MODEL, alias, version)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version, and the same ones on its run."""
        with self._client() as client:
            run_id = client.get_model_version(MODEL, version).run_id
            for name, value in tags.items():
                client.set_model_version_tag(MODEL, version, name, value)
                if run_id:
                    client.set_tag(run_id, name, value)

    def find_run(self, run_id: str | None, train_key: str) -> str:
        """Return the run of a training: by its id, or the copy of it where MLflow was down; UserError for none."""
        with self._client() as client:
            experiments = [item.experiment_id for item in client.search_experiments()]
            found = client.search_runs(
                experiments, f"tags.`train.key` = '{train_key}'", order_by=["attributes.start_time DESC"]
            )
        ids = [str(run.info.run_id) for run in found]
        if run_id in ids:
            return str(run_id)
        if not ids:
            raise UserError(
                f"training {train_key}: MLflow has no run of it, expected the one that its stages opened; "
                "was MLflow down? run `dvc repro --force deploy` when it is back"
            )
        return ids[0]

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Keep a file with a run."""
        with self._client() as client:
            client.log_artifact(run_id, str(path), folder)

    def run_page(self, run_id: str) -> str | None:
        """Return the address of a run's page, None where the store is no server and has no pages."""
        if not self._uri().startswith(("http://", "https://")):
            return None
        with self._client() as client:
            experiment_id = client.get_run(run_id).info.experiment_id
        return f"{_shown(self._uri()).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    def download_bundle(self, version: str, destination: Path) -> Path:
        """Copy a version's bundle out of MLflow into a folder and return where it is; UserError where it is gone."""
        with self._client() as client:
            made = client.get_model_version(MODEL, version)
            folder = str(made.source).rstrip("/").rpartition("/")[2]
            copied = Path(client.download_artifacts(made.run_id, folder, str(destination)))
        found = [path.parent for path in copied.rglob("manifest.json")]
        if not found:
            raise UserError(f"version {version}: MLflow's run {made.run_id} holds no bundle any more")
        return found[0]

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from mlflow.exceptions import MlflowException

        try:
            yield self._connect()
        except (MlflowException, OSError) as error:
            reason = one_line(error)[:300]
            raise RegistryDown(
                f"MLflow's registry at {_shown(self._uri())}: {reason}; promotions need it, start it or wait for it"
            ) from error

    def _connect(self) -> Any:
        if self._known is None:
            self._known = open_client(self._root)
        else:
            require_listener(self._uri())
        return self._known

    def _uri(self) -> str:
        return tracking_uri(self._root)


def ensure_experiment() -> None:
    """Make the experiment of the current project unless it is there: MLflow freezes where its runs keep files."""
    Store().attempt(lambda client, experiment_id: None)


def _aliases(client: Any) -> dict[str, str]:
    found = client.search_registered_models(f"name = '{MODEL}'")
    # Searching leaves the aliases out in some versions of MLflow; asking for the one model does not.
    registered = client.get_registered_model(MODEL) if found else None
    return {str(name): str(version) for name, version in (registered.aliases if registered else {}).items()}


def _shown(uri: str) -> str:
    """Return an address without the password that it may carry."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
