from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from deploy.bundle import open_bundle
from deploy.triton.model import TritonPythonModel
from deploy.triton.repository import BUNDLE_DIR, OUTPUTS, triton_config, write_triton_model
from lstfe.errors import UserError

_FIELD = descriptor_pb2.FieldDescriptorProto
# What config.pbtxt uses of Triton's model_config.proto: message -> field -> type, `*` for repeated.
_SCHEMA = {
    "Tensor": {"name": "string", "data_type": "DataType", "dims": "*int64"},
    "Control": {"kind": "ControlKind", "int32_false_true": "*int32", "data_type": "DataType"},
    "ControlInput": {"name": "string", "control": "*Control"},
    "Oldest": {"max_candidate_sequences": "int32"},
    "SequenceBatching": {
        "max_sequence_idle_microseconds": "uint64",
        "oldest": "Oldest",
        "control_input": "*ControlInput",
    },
    "InstanceGroup": {"count": "int32", "kind": "Kind", "gpus": "*int32"},
    "Parameter": {"string_value": "string"},
    "ParameterEntry": {"key": "string", "value": "Parameter"},
    "ModelConfig": {
        "name": "string",
        "backend": "string",
        "max_batch_size": "int32",
        "input": "*Tensor",
        "output": "*Tensor",
        "sequence_batching": "SequenceBatching",
        "instance_group": "*InstanceGroup",
        "parameters": "*ParameterEntry",
    },
}
_ENUMS = {
    "DataType": ["TYPE_INVALID", "TYPE_UINT8", "TYPE_UINT64", "TYPE_INT64", "TYPE_FP32"],
    "ControlKind": [f"CONTROL_SEQUENCE_{name}" for name in ("START", "READY", "END", "CORRID")],
    "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU"],
}


def model_config_class() -> Any:
    """Build the message class out of `_SCHEMA`."""
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="triton", syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            entry = message.field.add(name=field, number=number)
            entry.label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _SCHEMA or kind in _ENUMS:
                entry.type = _FIELD.TYPE_MESSAGE if kind in _SCHEMA else _FIELD.TYPE_ENUM
                entry.type_name = f".triton.{kind}"
            else:
                entry.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))


@pytest.fixture
def backend_utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Triton's module of that name, as far as the model uses it."""
    utils = ModuleType("triton_python_backend_utils")
    utils.Tensor = lambda name, array: SimpleNamespace(name=name, as_numpy=lambda: array)  # type: ignore[attr-defined]
    utils.TritonError = str  # type: ignore[attr-defined]
    utils.get_input_tensor_by_name = lambda request, name: request[name]  # type: ignore[attr-defined]

    def response(output_tensors: list[Any], error: str | None = None) -> Any:
        return SimpleNamespace(
            arrays={tensor.name: tensor.as_numpy() for tensor in output_tensors}, error=error
        )

    utils.InferenceResponse = response  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    return utils


@pytest.fixture
def model(bundle_dir: Path, tmp_path: Path, backend_utils: ModuleType) -> TritonPythonModel:
    path = write_triton_model(open_bundle(bundle_dir), tmp_path, backend="onnx", idle_seconds=60)
    model = TritonPythonModel()
    model.initialize(
        {
            "model_repository": str(path),
            "model_version": "1",
            "model_config": json.dumps(
                {
                    "parameters": {
                        "backend": {"string_value": "onnx"},
                        "idle_seconds": {"string_value": "60"},
                    }
                }
            ),
        }
    )
    return model


def request(sequence: int, frame: Any, *, start: bool = False, end: bool = False) -> dict[str, Any]:
    values = {"START": [[start]], "END": [[end]], "CORRID": [[sequence]]}
    arrays = {name: np.array(value) for name, value in values.items()} | {"FRAME": frame}
    return {name: SimpleNamespace(as_numpy=lambda array=array: array) for name, array in arrays.items()}


def test_the_configuration_is_one_that_triton_reads() -> None:
    text = triton_config("drones", backend="tensorrt", num_streams=9, num_instances=2, idle_seconds=30)
    config = text_format.Parse(text, model_config_class()())
    assert (config.name, config.backend, config.max_batch_size) == ("drones", "python", 1)
    assert [list(tensor.dims) for tensor in config.input] == [[-1, -1, 3]]
    assert [tensor.name for tensor in config.output] == list(OUTPUTS)
    batching = config.sequence_batching
    assert batching.max_sequence_idle_microseconds == 30_000_000
    assert batching.oldest.max_candidate_sequences == 5, "two instances for nine streams"
    assert [entry.name for entry in batching.control_input] == ["START", "END", "READY", "CORRID"]
    assert config.instance_group[0].count == 2
    assert {entry.key: entry.value.string_value for entry in config.parameters} == {
        "backend": "tensorrt",
        "idle_seconds": "30",
    }


def test_interleaved_sequences_get_the_detections_of_streams_of_their_own(
    model: TritonPythonModel, bundle_dir: Path, make_frames: Callable[..., Any]
) -> None:
    bundle = open_bundle(bundle_dir)
    videos = {7: list(make_frames(6, seed=1)), 8: list(make_frames(6, seed=2))}
    answers: dict[int, list[Any]] = {7: [], 8: []}
    for place in range(6):
        batch = [
            request(sequence, frames[place][None], start=place == 0, end=place == 5)
            for sequence, frames in videos.items()
        ]
        for sequence, answer in zip(videos, model.execute(batch), strict=True):
            assert answer.error is None
            answers[sequence].append(answer.arrays)
    assert len(model.streams) == 0
    for sequence, frames in videos.items():
        detector = bundle.detector("onnx")
        expected = [found for frame in frames for found in detector.push(frame)] + detector.finish()
        found = {name: np.concatenate([arrays[name][0] for arrays in answers[sequence]]) for name in OUTPUTS}
        assert found["COMPLETED"].tolist() == list(range(6))
        np.testing.assert_array_equal(
            found["SCORES"], np.concatenate([item.detections.scores for item in expected])
        )
        np.testing.assert_array_equal(
            found["BOXES"], np.concatenate([item.detections.boxes for item in expected])
        )
        assert len(found["FRAME_INDEX"]) == len(found["LABELS"]) == len(found["SCORES"])


def test_a_request_that_fails_answers_with_a_line_and_other_sequences_go_on(
    model: TritonPythonModel, make_frames: Callable[..., Any]
) -> None:
    frame = next(make_frames(1))
    small = next(make_frames(1, (32, 48)))
    model.execute([request(1, frame[None], start=True), request(2, frame[None], start=True)])
    failed, going_on = model.execute([request(1, small[None]), request(2, frame[None])])
    assert "frame 1 is 32x48 pixels" in failed.error
    assert going_on.error is None
    (ended,) = model.execute([request(1, frame[None])])
    assert "sequence 1 has not started" in ended.error
    (misshapen,) = model.execute([request(2, frame)])
    assert "expected (1, H, W, 3) uint8 RGB" in misshapen.error


def test_streams_that_triton_gave_up_are_dropped(
    model: TritonPythonModel, make_frames: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("deploy.triton.model.monotonic", lambda: now[0])
    frame = next(make_frames(1))[None]
    model.execute([request(1, frame, start=True)])
    now[0] += 61
    model.execute([request(2, frame, start=True)])
    assert len(model.streams) == 1


def test_a_folder_that_holds_something_else_is_left_alone(bundle_dir: Path, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_dir)
    other = tmp_path / bundle.manifest.name
    other.mkdir()
    with pytest.raises(UserError, match="holds something else than a model of this project"):
        write_triton_model(bundle, tmp_path)
    other.rmdir()
    path = write_triton_model(bundle, tmp_path)
    assert write_triton_model(bundle, tmp_path) == path, "its own model may be replaced"
    assert open_bundle(path / "1" / BUNDLE_DIR).manifest == bundle.manifest
    assert sorted(item.name for item in tmp_path.iterdir()) == [bundle.manifest.name]


def test_a_model_that_cannot_be_written_leaves_nothing_and_keeps_the_old_one(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(bundle_dir)
    path = write_triton_model(bundle, tmp_path)

    def full_disk(source: Path, target: Path, **_: Any) -> None:
        target.mkdir(parents=True)
        raise OSError("no space left on device")

    monkeypatch.setattr("shutil.copytree", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_triton_model(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert open_bundle(path / "1" / BUNDLE_DIR).manifest == bundle.manifest
