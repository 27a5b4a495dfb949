"""A network: layers in a row with their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backend import Array, Device, check_same_device, namespace, to_numpy
from ..datasets.admission import check_finite
from .examples import blocks, check_features, refuse_outputs, to_float
from .losses import softmax
from .per_model import integer, pick, shown
from .scaling import working_scaling
from .sequential import Sequential

__all__ = ["Network"]

_DTYPES = ("float32", "float64", "complex64", "complex128")  # complex for the complex step


class Network:
    """A ``Sequential`` with its arrays: what training gives, and what predicts.

    Parameters
    ----------
    architecture : Sequential
        The layers.
    arrays : mapping of str to array
        Parameters and running statistics by name.
    """

    def __init__(self, architecture: Sequential, arrays: Mapping[str, Array]) -> None:
        if [*map(isinstance, (architecture, arrays), (Sequential, Mapping))] != [True, True]:
            raise TypeError(f"Network: expected layers and named arrays, got {shown(architecture)}, {shown(arrays)}")
        missing = [name for name in architecture.shapes if name not in arrays]
        if missing:
            raise ValueError(f"the network needs arrays named {', '.join(missing)}; got {', '.join(map(str, arrays))}")
        for name, shape in architecture.shapes.items():
            got = tuple(arrays[name].shape)
            if got[max(len(got) - len(shape), 0) :] != shape:
                raise ValueError(f"{name}: expected shape {shape} (behind any model axes), got {got}")
            namespace(arrays[name])  # refuses what is no array
            # By its name, which is another one in another byte order.
            if str(arrays[name].dtype).rpartition(".")[2] not in _DTYPES:
                raise TypeError(f"{name}: expected floating-point numbers, as float32 or float64 in this machine's "
                                f"byte order, got dtype {arrays[name].dtype}; convert it with astype('float32')")
        self.architecture: Sequential = architecture
        self.arrays: dict[str, Array] = dict(arrays)
        self.device: Device = check_same_device(**self.arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrays of CuPy are unpickled on the device that is current then, which need not be the one they were on.
        return type(self), (self.architecture, self.arrays)

    def __repr__(self) -> str:
        return f"Network({self.architecture!r} on {self.device.name})"

    def __call__(self, x: Array, *, block: int = 1000) -> Array:
        """Return the outputs for x (n, in_features) as (*models, n, out_features), block by block.

        Raises
        ------
        ValueError
            If x has another width or lies on another device.
        NotFiniteError
            If features or outputs are NaN or infinite, or features are so in the network's dtype; it is a ValueError.
        """
        x = check_features(x, self.architecture, self.device)
        xp, dtype = self.device.xp, self.arrays[self.architecture.parameters[0]].dtype
        scaling: Any = tuple(self.arrays[name] for name in self.architecture.inputs)
        parts = []
        with self.device.activate(), self.device.ignore_overflow():
            check_finite(x, "features", dtype=dtype, scaling=scaling or None)
            arrays = {**self.arrays, **self._scaling(x)}
            for rows in blocks(x.shape[-2], block):
                part = to_float(x[..., rows, :], self.architecture, dtype)
                parts.append(self.architecture.forward(arrays, part)[0])
            outputs = parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)
            # A sum is finite only if all are, and takes one pass; it may overflow though they are.
            if not bool(xp.isfinite(xp.sum(outputs))) and not bool(xp.all(xp.isfinite(outputs))):
                refuse_outputs(to_numpy(outputs), self.arrays)
            return outputs

    def _scaling(self, x: Array) -> dict[str, Array]:
        """Return the input's offset and scale as they are applied to x: none without standardisation."""
        inputs, dtype = self.architecture.inputs, self.arrays[self.architecture.parameters[0]].dtype
        if not inputs:
            return {}
        offset, scale = (self.arrays[name] for name in inputs)
        return dict(zip(inputs, working_scaling(x, offset, scale, dtype), strict=True))

    def predict_proba(self, x: Array) -> Array:
        """Return the classes' probabilities (*models, n, classes): for a classifier, and not for regression.

        Parameters
        ----------
        x : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (*models, n, classes)
            Each row sums to 1.

        Raises
        ------
        ValueError
            If the network has one output.
        """
        self._check_classes()
        with self.device.activate():
            return softmax(self(x))

    def predict(self, x: Array) -> Array:
        """Return the index of the likeliest class (*models, n).

        Parameters
        ----------
        x : array of shape (n, features)
            The features.

        Returns
        -------
        array of int, shape (*models, n)
            Out of 0 to classes - 1.

        Raises
        ------
        ValueError
            If the network has one output.
        """
        self._check_classes()
        with self.device.activate():
            return self.device.xp.argmax(self(x), axis=-1)

    def _check_classes(self) -> None:
        if self.architecture.out_features == 1:
            raise ValueError("this network has one output, and so no classes to choose from: network(x) gives its "
                             "outputs (n, 1), as for regression (on the command line: xpnet predict --raw)")

    @property
    def models(self) -> tuple[int, ...]:
        """The model axis: ``(models,)``, or ``()`` for one network."""
        arrays = {name: self.arrays[name] for name in self.architecture.shapes}
        return next(((a.shape[0],) for name, a in arrays.items() if self.architecture.has_model_axis(name, a)), ())

    def member(self, index: int) -> Network:
        """Return one model of several as an ordinary network.

        Parameters
        ----------
        index : int
            Which one.

        Returns
        -------
        Network
            With copies of its arrays; an IndexError if there is no such model.
        """
        models = self.models[0] if self.models else 1
        if not -models <= (index := integer("member", "the number of a model", index, low=-models)) < models:
            raise IndexError(f"member: expected the number of a model from 0 to {models - 1}, got {index}")
        own = self.architecture.has_model_axis
        one = {name: self.device.asarray(a[index, ...] if own(name, a) else a, copy=True)
               for name, a in self.arrays.items()}
        layers = [pick(layer, index) for layer in self.architecture.layers]
        return Network(self.architecture.with_layers(layers), one)

    def save(self, path: str | Path) -> None:
        """Write the arrays and the architecture to a safetensors file; ``load`` reads it.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        from .formats.safetensors import save_network

        save_network(path, self)

    @classmethod
    def load(cls, path: str | Path, device: str | Device = "cpu") -> Network:
        """Read a file that ``save`` wrote.

        Parameters
        ----------
        path : path
            The file.
        device : str or Device
            Where the network will lie.
        """
        from .formats.safetensors import load_network

        return load_network(cls, path, device)

    def summary(self, device: str | Device | None = None) -> str:
        """Return the layers as a text table: output shapes, parameters, operations; ``summary.layers`` gives rows.

        Parameters
        ----------
        device : str or Device, optional
            A line more says whether long runs there make many updates in one launch, and if not, why.

        Returns
        -------
        str
            A line for each layer, then the totals.
        """
        from .summary import summary

        return summary(self, device)

    def to_npz(self, path: str | Path) -> None:
        """Write the arrays and the architecture to an npz file: see ``formats.convert.save_npz``.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        from .formats.convert import save_npz

        save_npz(path, self)

    @classmethod
    def from_npz(
        cls, path: str | Path, architecture: Sequential | None = None, device: str | Device = "cpu"
    ) -> Network:
        """Read an npz file, of ``to_npz`` or of arrays alone. Nothing is unpickled.

        Parameters
        ----------
        path : path
            The file.
        architecture : Sequential, optional
            The layers, where the file holds only arrays by their names (``W1``, ``b1``, ...).
        device : str or Device
            Where the network will lie.

        Returns
        -------
        Network
            With copies of the file's arrays.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        CheckpointError
            If it is damaged, or does not hold what the network needs.
        """
        from .formats.convert import load_npz

        return load_npz(cls, path, architecture, device)

    def to_torch(self, dtype: str | None = None) -> dict[str, Any]:
        """Return the state dict of the torch ``Sequential`` with the same layers: see ``formats.convert.to_torch``.

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Dtype of the arrays; the network's by default.

        Returns
        -------
        dict of str to array
            Copies, on the host, named ``0.weight`` and so on.
        """
        from .formats.convert import to_torch

        return to_torch(self, dtype)

    @classmethod
    def from_torch(
        cls, architecture: Sequential, state: Mapping[str, Any], device: str | Device = "cpu", *,
        keys: Sequence[str] | None = None,
    ) -> Network:
        """Make a network of a torch module's state dict.

        The order of ``state`` does not matter, as files do not keep it: safetensors files sort their keys. Modules
        are matched with layers by their kind and the shapes of their arrays, and those that fit in each other's place
        by the numbers in their names, ``fc2`` before ``fc10``. If the names differ in more than numbers, ``keys``
        tells the order.

        Parameters
        ----------
        architecture : Sequential
            The layers. Standardize, which torch does not know, gets an offset of 0 and a scale of 1.
        state : mapping of str to array
            What ``module.state_dict()`` returns, of tensors or any arrays. ``num_batches_tracked`` is left out; a
            Linear without a bias gets one of 0, which is the same. float16 becomes float32, which is exact.
        device : str or Device
            Where the network will lie.
        keys : sequence of str, optional
            The names of the modules in the order of the layers, such as ``["input", "hidden", "output"]``. Other
            modules in ``state`` are then left out.

        Returns
        -------
        Network
            With copies of the arrays.

        Raises
        ------
        ValueError
            If the modules do not fit the layers (their number, their kind, or their widths), or their order is open.
        TypeError
            If the architecture has a layer that torch does not know, or ``state`` an array that NumPy cannot hold.
        """
        from .formats.state_dict import from_torch

        return from_torch(cls, architecture, state, keys, device)

    def fold(self) -> Network:
        """Return a network that predicts the same without batch norm and dropout: see ``formats.convert.fold``.

        Returns
        -------
        Network
            A network of Linear and ReLU alone, with copies of the arrays.
        """
        from .formats.convert import fold

        return fold(self)

    def to_onnx(
        self, path: str | Path | None = None, *, input_dtype: str | None = None, softmax: bool = False
    ) -> Any:
        """Return the ONNX model, and write it where a path is given: see ``formats.onnx.to_onnx``.

        Parameters
        ----------
        path : path, optional
            The file to write.
        input_dtype : str, optional
            What the model takes: by default the network's dtype, or float64 if that would round the features'
            offset away.
        softmax : bool
            Return probabilities rather than the network's outputs.

        Returns
        -------
        onnx.ModelProto
            The model.
        """
        from .formats.onnx import to_onnx

        return to_onnx(self, path, input_dtype=input_dtype, softmax=softmax)
