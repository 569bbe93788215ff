"""The steps of a retraining, each on the work tree that its plan names."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstfe.errors import UserError
from lstfe.params import load_config
from lstfe.whole_files import new_file
from pipelines import isolated_tree, registry
from pipelines.arrivals import find_arrivals, grow, is_as_made
from pipelines.command import StageError
from pipelines.environment import child_environment
from pipelines.gate import Decision, Evidence, Paired, decide
from pipelines.model_versions import ModelVersions
from pipelines.paths import CHAMPION_DETECTIONS, DEPLOYED, EVALUATED, EXPORTED, PARAMS, PREPARED, RAW, TRAINED
from pipelines.stage import Report, bring_up_to_date, output_of_stage, run_group

if TYPE_CHECKING:
    from pipelines.retraining import Plan

GROWN = "_grown"
"""What the name of a data set ends in that began as a stage's output and has grown past it."""
_TAG_CHARACTERS = re.compile(r"[^\w\-. /]")  # names of classes are in names of tags
_LATENCY = Path(".work/champion/latency.json")
_DECISION = Path(".work/champion/decision.json")


class Challenger:
    """A challenger on its way; every step can be done again."""

    def __init__(self, plan: Plan, environment: Mapping[str, str], report: Report) -> None:
        self._plan = plan
        self._root, self._tree = plan.root, plan.tree
        self._environment = environment
        self._report = report

    def take_data(self) -> dict[str, list[str]]:
        """Bring the data into the tree, deliveries in its training split, and version it; delivery -> its videos."""
        name, tree = self._plan.data_name, self._tree
        marker = tree / ".work" / "arrived.json"
        if marker.is_file():  # an earlier, killed run has done it
            return dict(json.loads(marker.read_text(encoding="utf-8")))
        arrivals = find_arrivals(self._root, name)
        values: dict[str, Any] = {}
        arrived: dict[str, list[str]] = {}
        source = self._root / RAW / name
        made = output_of_stage(self._root, RAW / name)
        is_plain = is_as_made(self._root, name)
        if is_plain and not arrivals:
            self._report(f"{RAW / name} is as its stage makes it")
        else:
            if made is not None:
                if is_plain:  # what the stage of this commit writes, whatever lies in the main tree
                    bring_up_to_date(made[0], root=tree, report=self._report, environment=self._environment)
                    source = tree / RAW / name
                values["data.name"] = name = name + GROWN  # a stage's output cannot be added to DVC
            if not source.is_dir():
                raise UserError(
                    f"{source}: no such data set, expected the one of params.yaml (data.name); "
                    "import it, or `dvc pull`"
                )
            arrived = grow(source, arrivals, tree / RAW / name)
            isolated_tree.run_dvc(tree, "add", str(RAW / name), report=self._report)
        values |= self._warm_start()
        isolated_tree.set_params(tree, values)
        marker.parent.mkdir(parents=True, exist_ok=True)
        with new_file(marker) as partial:
            partial.write_text(json.dumps(arrived), encoding="utf-8")
        return arrived

    def check_data(self) -> None:
        """Check the raw data set as `lstfe data check` does; UserError where something must be mended."""
        from pipelines.checking import check_raw

        raw = self._raw()
        if not raw.is_dir():  # the stage that makes it comes later, and makes no errors
            return
        output = self._root / "artifacts" / "checked" / raw.name
        text, is_well = check_raw(raw, output, root=self._tree)
        self._report(text)
        if not is_well:
            raise UserError(f"{raw.name} has errors, nothing is trained on it; mend what {output} tells of")

    def score_champion(self) -> None:
        """Detect with the champion on the challenger's own test frames."""
        champion, detections = self._plan.champion, self._tree / CHAMPION_DETECTIONS
        if champion is None or detections.is_file():
            return
        if self._labels()[0] != self._labels()[1]:
            return  # nothing to compare, the gate says so
        from pipelines.champion_scores import BUNDLE

        self._run("pipelines.champion_scores", **{BUNDLE: champion.bundle})

    def measure_latency(self) -> None:
        """Time challenger and champion on the same frames, in turns."""
        output = self._tree / _LATENCY
        if output.is_file():
            return
        output.parent.mkdir(parents=True, exist_ok=True)
        champion = self._plan.champion
        bundles = [f"challenger={self._tree / DEPLOYED}"]
        bundles += [f"champion={champion.bundle}"] if champion else []
        config = load_config(self._tree / PARAMS)
        frames = self._plan.operations.retrain.latency_frames
        self._run("pipelines.latency", config.evaluate.split, str(frames), str(_LATENCY), *bundles)

    def decide(self) -> Decision:
        """Put the evidence before the gate and keep the decision with all its numbers."""
        evidence = self._evidence()
        gate = self._plan.operations.gate
        decision = decide(evidence, gate)
        self._report(decision.summary)
        content = {
            **decision.to_json(),
            "champion": self._plan.champion.version if self._plan.champion else None,
            "evidence": asdict(evidence),
            "gate": asdict(gate),
        }
        path = self._tree / _DECISION
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return decision

    def register(self) -> tuple[str, str]:
        """Keep the challenger's bundle as a new version, tagged with the decision; return version and run."""
        from pipelines.footage_values import write_reference

        record = json.loads((self._tree / TRAINED / "run.json").read_text(encoding="utf-8"))
        decision = json.loads((self._tree / _DECISION).read_text(encoding="utf-8"))
        versions = ModelVersions(self._root)
        run_id = versions.find_run(record["run_id"], record["train_key"])
        tags = {"train.key": record["train_key"], "data.md5": record["data_md5"]}
        version = registry.enrol(self._root, self._tree / DEPLOYED, run_id=run_id, tags=tags)
        versions.tag(version, _decision_tags(decision))
        versions.log_file(run_id, self._tree / _DECISION, "gate")
        reference = registry.reference_path(self._root, version)
        if not reference.is_file():
            write_reference(self._tree, self._plan.operations.drift, reference)
        versions.log_file(run_id, reference, "drift")
        return version, run_id

    def _warm_start(self) -> dict[str, Any]:
        """Version the champion's weights in the tree, and return the parameters that a training from them has."""
        champion, wanted = self._plan.champion, self._plan.operations.retrain
        if champion is None:
            return {}
        values: dict[str, Any] = {f"{name}": value for name, value in wanted.overrides.items()}
        if wanted.warm_start:
            from deploy.bundle import WEIGHTS_FILE, open_bundle

            bundle = open_bundle(champion.bundle)
            # Named by content: the file is no dependency of train, but its name is among the parameters.
            path = Path("data/champions") / f"{bundle.manifest.files[WEIGHTS_FILE].sha256[:12]}.safetensors"
            (self._tree / path).parent.mkdir(parents=True, exist_ok=True)
            (self._tree / path).write_bytes((bundle.directory / WEIGHTS_FILE).read_bytes())
            isolated_tree.run_dvc(self._tree, "add", str(path), report=self._report)
            values["train.warm_start"] = path.as_posix()
        return values

    def _evidence(self) -> Evidence:
        from pipelines.evidence import load_scored, paired_figures, parity_difference, single_figure

        config = load_config(self._tree / PARAMS)
        prepared, gate = self._tree / PREPARED / config.data.name, self._plan.operations.gate
        ours = load_scored(prepared, self._tree / EVALUATED / "detections.json", config.evaluate)
        ap50 = single_figure(ours, gate.protocol)
        by_class: dict[str, Paired] = {}
        by_size: dict[str, Paired] = {}
        detections = self._tree / CHAMPION_DETECTIONS
        if detections.is_file():
            theirs = load_scored(prepared, detections, config.evaluate)
            wanted = config.evaluate
            ap50, by_class, by_size = paired_figures(
                ours, theirs, gate.protocol, resamples=wanted.resamples, seed=wanted.seed
            )
        latency = json.loads((self._tree / _LATENCY).read_text(encoding="utf-8"))
        return Evidence(
            has_champion=self._plan.champion is not None,
            ap50=ap50,
            by_class=by_class,
            by_size=by_size,
            parity_difference=parity_difference(self._tree / EXPORTED / "parity.json"),
            latency_ms=(latency["challenger"], latency.get("champion")),
            labels=self._labels(),
        )

    def _labels(self) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        from deploy.bundle import open_bundle

        ours = tuple(json.loads((self._tree / TRAINED / "labels.json").read_text(encoding="utf-8")))
        champion = self._plan.champion
        return ours, tuple(open_bundle(champion.bundle).label_names) if champion else None

    def _raw(self) -> Path:
        return self._tree / RAW / load_config(self._tree / PARAMS).data.name

    def _run(self, module: str, *arguments: str, **extra: str) -> None:
        """Run a module of ours (or of DVC) in the tree; StageError where it fails."""
        command = [sys.executable, "-m", module, *arguments]
        environment = child_environment(self._tree, {**self._environment, **extra})
        lines: list[str] = []

        def keep(line: str) -> None:
            lines.append(line)
            self._report(line)

        exit_code = run_group(command, cwd=self._tree, env=environment, report=keep)
        if exit_code != 0:
            words = [line.split(": ", 1)[1] for line in lines if line.lower().startswith("error: ")]
            reason = words[0] if words else "see its output above"
            raise StageError(f"{module} failed: {reason}", exit_code=exit_code)


def _decision_tags(decision: Mapping[str, Any]) -> dict[str, str]:
    """Return a decision as tags: the outcome, its words, and each check's value."""
    tags = {
        "gate.decision": "promote" if decision["promote"] else "refuse",
        "gate.summary": str(decision["summary"])[:5000],
        "gate.champion": str(decision["champion"]),
    }
    for check in decision["checks"]:
        if check["value"] is not None:
            name = _TAG_CHARACTERS.sub("_", check["name"].replace(" ", "."))
            tags[f"gate.{name}"] = f"{check['value']:.6g}"
    ap50 = decision["evidence"]["ap50"]
    if ap50["interval"]:
        low, high = ap50["interval"]
        tags["gate.ap50.interval"] = f"{low:+.4f} to {high:+.4f}"
    return tags
