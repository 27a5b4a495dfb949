"""ONNX models predict as the networks that they were made of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import ARCHITECTURES, Square, trained
from helpers import assert_close, draw

from xpnet import Network, Sequential, Trainer
from xpnet import mlp as make
from xpnet.backend import Device, to_numpy
from xpnet.nn.formats.onnx import to_onnx
from xpnet.nn.layers import Linear


def onnx() -> Any:
    return pytest.importorskip("onnx", reason="onnx is not installed")


def run_onnx(model: Any, x: Any) -> Any:
    """Return what onnxruntime makes of an input."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnxruntime_predicts_the_same(device: Device, name: str, dtype: str) -> None:
    onnx()
    network = trained(ARCHITECTURES[name], device, dtype)
    model = network.to_onnx()
    for n in (1, 50):
        x = np.array(to_numpy(draw(Device(), "x", (n, 6), dtype)))
        outputs = run_onnx(model, x)
        assert outputs.dtype == dtype
        assert_close(outputs, network(device.asarray(x)), 1e-5 if dtype == "float32" else 1e-13)


def test_onnx_folds_running_statistics_and_leaves_dropout_out() -> None:
    onnx()
    operations = [node.op_type for node in to_onnx(trained(ARCHITECTURES["everything"])).graph.node]
    assert operations == ["Sub", "Mul", "Gemm", "Relu", "Gemm", "Relu", "Gemm", "Identity"]
    operations = [node.op_type for node in to_onnx(trained(ARCHITECTURES["batch norm first and last"])).graph.node]
    assert operations == ["Sub", "Mul", "Add", "Gemm", "Relu", "Sub", "Mul", "Add", "Gemm", "Identity"]


@pytest.mark.parametrize("standardize", [True, False])
def test_onnx_takes_pixels(standardize: bool) -> None:
    onnx()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 12), dtype=np.uint8)
    trainer = Trainer(make(12, [8], 3, batch_norm=True, standardize=standardize), batch_size=10)
    trainer.fit(pixels, np.arange(40) % 3, steps=5)
    model = to_onnx(trainer.network, input_dtype="uint8")
    assert model.graph.node[0].op_type == "Cast"
    assert_close(run_onnx(model, pixels), trainer.network(pixels), 1e-5)
    with pytest.raises(ValueError, match="expected input_dtype uint8, float32, float64, got 'int8'"):
        to_onnx(trainer.network, input_dtype="int8")


def test_onnx_gives_probabilities_and_writes_a_file(tmp_path: Path) -> None:
    onnx()
    network = trained(ARCHITECTURES["everything"])
    model = network.to_onnx(tmp_path / "network.onnx", softmax=True)
    content = (tmp_path / "network.onnx").read_bytes()
    assert content == model.SerializeToString(deterministic=True)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "probabilities"]
    x = to_numpy(draw(Device(), "x", (50, 6), "float32"))
    assert_close(run_onnx(content, x), network.predict_proba(x), 1e-5)
    with pytest.raises(FileNotFoundError, match="no directory"):
        to_onnx(network, tmp_path / "missing" / "n.onnx")


def test_what_onnx_does_not_know_is_refused() -> None:
    onnx()
    arrays = {name: np.ones(shape) for name, shape in Sequential(6, [Linear(3)]).shapes.items()}
    with pytest.raises(TypeError, match=r"to_onnx: .*Square"):
        to_onnx(Network(Sequential(6, [Linear(3), Square()]), arrays))
    with pytest.raises(ValueError, match="to_onnx: expected one network, got 2 models"):
        to_onnx(trained(make(6, [4], 3), seed=[1, 2]))


def test_without_onnx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[onnx\]'"):
        to_onnx(trained(make(6, [4], 3)))
