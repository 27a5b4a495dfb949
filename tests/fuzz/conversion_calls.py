"""Random conversions of networks: to torch, ONNX and files, and back."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import reference
from answers import Answers, FoundError, answer, confirm

import xpnet
from xpnet import Network

HAS_TORCH, HAS_ONNX = (all(map(importlib.util.find_spec, names)) for names in (["torch"], ["onnx", "onnxruntime"]))


def of_state(architecture: xpnet.Sequential, state: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """Return the independent model's outputs for the state dict of a torch ``Sequential``."""
    layers = [layer for layer in reference.describe(architecture) if layer[0] != "Standardize"]
    arrays: dict[str, np.ndarray] = {}
    names = {"Linear": (("W", "weight"), ("b", "bias")),
             "BatchNorm": (("gamma", "weight"), ("beta", "bias"), ("mean", "running_mean"), ("var", "running_var"))}
    for i, (kind, _) in enumerate(layers):
        number = sum(other == kind for other, _ in layers[: i + 1])
        for own, of_torch in names.get(kind, ()):
            a = np.asarray(state[f"{i}.{of_torch}"], np.float64)
            arrays[f"{own}{number}"] = a.T if own == "W" else a
    return reference.forward(layers, arrays, x)[0]


def torch_module(architecture: xpnet.Sequential, dtype: str) -> Any:
    """Return a torch ``Sequential`` with the same layers."""
    import torch

    width, modules = architecture.in_features, []
    for kind, options in reference.describe(architecture):
        if kind == "Linear":
            modules.append(torch.nn.Linear(width, options["out_width"]))
            width = options["out_width"]
        elif kind == "BatchNorm":
            modules.append(torch.nn.BatchNorm1d(width, eps=options["eps"]))
        elif kind != "Standardize":
            modules.append({"ReLU": torch.nn.ReLU, "Tanh": torch.nn.Tanh, "Dropout": torch.nn.Dropout,
                            "LeakyReLU": lambda: torch.nn.LeakyReLU(options["slope"])}[kind]())  # noqa: B023
    return torch.nn.Sequential(*modules).to(getattr(torch, dtype)).eval()


class ConversionCalls(Answers):
    """Random conversions, each of a network with random arrays."""

    def network(self) -> tuple[Network, np.ndarray]:
        """Return a network, of several models now and then, and features that it is made for."""
        k, dtype = int(self.rng.integers(1, 6)), self.pick("float32", "float64")
        architecture = self.architecture(k, int(self.rng.integers(1, 4)))
        if self.rng.random() < 0.3:
            layers = [*architecture.layers]
            layers.insert(int(self.rng.integers(len(layers) > 1, len(layers))), xpnet.Dropout(0.5))
            architecture = xpnet.Sequential(k, layers)
        models = (2,) if self.rng.random() < 0.1 else ()
        offset, deviation = self.pick(0.0, 1.0, 1e3, 1.7e12), self.pick(1.0, 1e-3, 1e3)
        arrays: dict[str, Any] = {}
        for name, shape in architecture.shapes.items():
            values = self.rng.normal(size=(*models, *shape))
            if name.startswith("offset"):
                arrays[name] = offset + deviation * self.rng.normal(size=shape)
            elif name.startswith("scale"):
                arrays[name] = np.full(shape, 1 / deviation)
            else:
                arrays[name] = (np.abs(values) + 0.01 if name.startswith("var") else values).astype(dtype)
        x = self.rng.normal(size=(int(self.rng.integers(1, 8)), k))
        if architecture.inputs:
            x = offset + deviation * x
        else:
            x = x.astype(dtype).astype(np.float64)
        return Network(architecture, arrays), x

    def convert(self) -> None:
        """Convert a network, and compare the other's predictions with the independent model's."""
        network, x = self.network()
        before = {name: np.array(a) for name, a in network.arrays.items()}
        self.pick(self._to_torch, self._from_torch, self._onnx, self._fold, self._copies)(network, x)
        for name, a in before.items():
            if not np.array_equal(np.asarray(network.arrays[name]), a):
                raise FoundError(f"a conversion changed {name} of the network")

    def _to_torch(self, network: Network, x: np.ndarray) -> None:
        dtype = self.pick(None, None, "float32", "float64", "float16", np.float32)
        bad = "models" if network.models else "dtype" if dtype not in (None, "float32", "float64") else "maybe"
        state = self.expect(bad, lambda: network.to_torch(dtype))
        kind = dtype or str(network.arrays["W1"].dtype)
        rounded = Network(network.architecture, {name: a if name in network.architecture.inputs else a.astype(kind)
                                                 for name, a in network.arrays.items()})
        expected, tolerance = self.modelled(rounded, x, rounded_input=True)
        confirm(of_state(network.architecture, state, x), expected, tolerance + 1e-5 * (np.abs(expected).max() + 1),
                "state dict")
        for a in state.values():  # of a live network: these must be copies
            a[...] = 0

    def _from_torch(self, network: Network, x: np.ndarray) -> None:
        layers = [layer for layer in network.architecture.layers if type(layer).__name__ != "Standardize"]
        architecture = xpnet.Sequential(network.architecture.in_features, layers)
        if network.models:
            return
        network = Network(architecture, {name: a for name, a in network.arrays.items() if name in architecture.shapes})
        state = dict(answer(network.to_torch))
        if HAS_TORCH:
            self._in_torch(architecture, state, network, x)
        modules = sorted({key.rpartition(".")[0] for key in state}, key=int)
        naming = self.pick("numbers", "numbers", "ten", "words", "keys")
        new = {"numbers": [f"net.{m}" for m in modules], "ten": [f"fc{7 + int(m)}" for m in modules]}.get(
            naming, [f"{chr(122 - i)}" for i in range(len(modules))])
        renamed = {f"{new[modules.index(key.rpartition('.')[0])]}.{key.rpartition('.')[2]}": a
                   for key, a in state.items()}
        bad, keys = "maybe" if naming == "words" else "", [*new] if naming == "keys" else None
        odd = self.pick(*[""] * 6, "lacks", "transposed", "more", "text", "extra module", "a list")
        key = f"{new[0]}.weight"
        if odd == "lacks":
            del renamed[key]
        elif odd == "transposed":
            a = renamed[key]
            bad = "maybe" if a.ndim == 1 or a.shape[0] == a.shape[1] else odd
            renamed[key] = np.ascontiguousarray(a.T)
        elif odd == "more":
            renamed[f"{new[0]}.other"] = np.zeros(3)
        elif odd == "text":
            renamed[key] = renamed[key].astype(str)
        elif odd == "extra module":
            renamed["last.weight"] = np.zeros((2, 2))
        elif odd == "a list":
            renamed[key], bad = renamed[key].tolist(), "maybe"
        if odd == "extra module":
            bad = bad if keys else odd
        elif odd in ("lacks", "more", "text"):
            bad = odd
        order = self.rng.permutation(len(renamed))
        shuffled = {name: renamed[name] for name in (list(renamed)[i] for i in order)}
        other = self.expect(bad, lambda: Network.from_torch(architecture, shuffled, keys=keys))
        if odd in ("", "extra module"):
            self._same(network, other, "from_torch")

    def _in_torch(self, architecture: xpnet.Sequential, state: dict[str, Any], network: Network, x: Any) -> None:
        import torch

        dtype = str(network.arrays["W1"].dtype)
        module = torch_module(architecture, dtype)
        module.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
        with torch.no_grad():
            got = module(torch.from_numpy(x.astype(dtype))).numpy()
        confirm(got, *self.modelled(network, x), "torch")
        self._same(network, answer(lambda: Network.from_torch(architecture, module.state_dict())), "from torch's own")

    def _same(self, network: Network, other: Network, what: str) -> None:
        for name, a in network.arrays.items():
            if not np.array_equal(np.asarray(other.arrays[name]), np.asarray(a)):
                raise FoundError(f"{what}: {name} is another one")
            if np.shares_memory(np.asarray(other.arrays[name]), np.asarray(a)):
                raise FoundError(f"{what}: {name} is a view")

    def _onnx(self, network: Network, x: np.ndarray) -> None:
        if not HAS_ONNX:
            return
        import onnxruntime

        softmax, path = bool(self.rng.random() < 0.3), self.folder / "n.onnx"
        input_dtype = self.pick(None, None, None, "float64", "float32", "int8")
        bad = "models" if network.models else "dtype" if input_dtype == "int8" else ""
        model = self.expect(bad, lambda: network.to_onnx(path, input_dtype=input_dtype, softmax=softmax))
        if path.read_bytes() != model.SerializeToString(deterministic=True):
            raise FoundError("to_onnx: the file is another model")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = {"tensor(float)": "float32", "tensor(double)": "float64"}[session.get_inputs()[0].type]
        seen = x.astype(given)
        got = session.run(None, {"x": seen})[0]
        expected, tolerance = self.modelled(network, seen.astype(np.float64))
        if softmax:
            expected = np.exp(expected - expected.max(axis=1, keepdims=True))
            expected /= expected.sum(axis=1, keepdims=True)
        confirm(got, expected, tolerance + 1e-6 * (str(network.arrays["W1"].dtype) == "float32"), "onnx")

    def _fold(self, network: Network, x: np.ndarray) -> None:
        folded = answer(network.fold)
        kinds = [kind for kind, _ in reference.describe(folded.architecture)]
        if "Dropout" in kinds or ("Linear", "BatchNorm") in itertools.pairwise(kinds):
            raise FoundError(f"fold: left {kinds}")
        for i in range(network.models[0] if network.models else 1):
            one, other = (n.member(i) if n.models else n for n in (network, folded))
            expected, tolerance = self.modelled(one, x)
            confirm(answer(lambda: other(x)), expected,  # noqa: B023
                    16 * tolerance + self.modelled(other, x)[1], "fold")
        for a in folded.arrays.values():
            a[...] = 0

    def _copies(self, network: Network, x: np.ndarray) -> None:
        path = Path(self.folder) / self.pick("c.npz", "c.safetensors", "no ending")
        if path.suffix == ".npz":
            answer(lambda: network.to_npz(path))
            other = answer(lambda: Network.from_npz(path))
        else:
            answer(lambda: network.save(path))
            other = answer(lambda: Network.load(path))
        self._same(network, other, path.name)
        self._same(network, pickle.loads(pickle.dumps(network)), "pickle")  # noqa: S301
        self._same(network, copy.deepcopy(network), "deepcopy")
        if network.models:
            member = answer(lambda: network.member(1))
            confirm(answer(lambda: network(x))[1], answer(lambda: member(x)), 1e-4 * (1 + np.abs(member(x)).max()),
                    "member")
        else:
            confirm(answer(lambda: other(x)), *self.modelled(network, x), "read back")
