"""Networks: layers in a row (``Sequential``), and such a row with its arrays (``Network``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import random
from .backend import Array, Device, check_same_device, from_dlpack, namespace
from .batches import blocks
from .buffers import Buffers
from .hyper import at_least_1, bind, describe, is_array, lengths, pick
from .initializers import He, Initializer
from .layers import BatchNorm, Dropout, Layer, Linear, ReLU, Standardize
from .losses import softmax

__all__ = ["Network", "Sequential", "Wired", "mlp"]


class Sequential:
    """Layers in a row: a function of its arrays and its input.

    The k-th layer that owns a ``W`` calls it ``W1``, ``W2``, ..., and so for every name: with batch norm
    after each hidden layer, ``gamma1`` belongs to ``W1``.

    Parameters
    ----------
    in_features : int
        Width of the input.
    layers : sequence of Layer
        The layers, first to last.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shape of each array by name, the model axis left out.
    parameters, weights, statistics : tuple of str
        Names of the trained arrays, of those the L2 penalty takes, and of the running statistics.
    inputs : tuple of str
        Names of the arrays that describe the input, which models share.
    out_features : int
        Width of the output.
    """

    def __init__(self, in_features: int, layers: Sequence[Layer]) -> None:
        at_least_1("Sequential", "in_features", in_features)
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: expected layers, got {layer!r} at place {i}; make it, like ReLU()")
            if i and isinstance(layer, Standardize):
                raise ValueError(f"Sequential: Standardize scales the input, so it comes first, not at place {i}")
        if not any(layer.parameters for layer in layers):
            raise ValueError("Sequential: expected at least one layer with parameters, like Linear, got none")
        self.in_features: int = in_features
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.widths: list[int] = []  # of each layer's input
        self._names: list[tuple[str, ...]] = []
        parameters, weights, statistics, counts = [], [], [], dict[str, int]()
        width = in_features
        for layer in self.layers:
            numbered = {}
            for name, shape in layer.shapes(width).items():
                counts[name] = counts.get(name, 0) + 1
                numbered[name] = f"{name}{counts[name]}"
                self.shapes[numbered[name]] = shape
            parameters += [numbered[name] for name in layer.parameters]
            weights += [numbered[name] for name in layer.weights]
            statistics += [numbered[name] for name in layer.statistics]
            self._names.append(tuple(numbered[name] for name in (*layer.parameters, *layer.statistics)))
            self.widths.append(width)
            width = layer.out_features(width)
        self.parameters: tuple[str, ...] = tuple(parameters)
        self.weights: tuple[str, ...] = tuple(weights)
        self.statistics: tuple[str, ...] = tuple(statistics)
        self.inputs: tuple[str, ...] = self._names[0] if isinstance(self.layers[0], Standardize) else ()
        self.out_features = width

    def __repr__(self) -> str:
        return f"Sequential({self.in_features}, {list(self.layers)})"

    def bind(self, device: Device, dtype: str) -> Sequential:
        """Give the same network with its hyper-parameter arrays on ``device``.

        Parameters
        ----------
        device : Device
            Where to.
        dtype : str
            The dtype of the copies.

        Returns
        -------
        Sequential
            The network itself, where it has no such arrays.
        """
        return Sequential(self.in_features, [bind(layer, device, dtype, axes=2) for layer in self.layers])

    def models(self) -> tuple[int, ...]:
        """Give the model axis that the layers' own hyper-parameters have, () for none.

        Returns
        -------
        tuple of int
            ``(models,)``, or ``()``.
        """
        sizes = {size for layer in self.layers for _, size in lengths(layer)}
        if len(sizes) > 1:
            raise ValueError(f"expected hyper-parameter arrays of one length, got lengths {sorted(sizes)}")
        return tuple(sizes)

    def allocate(self, models: tuple[int, ...], device: Device, dtype: str) -> tuple[Buffers, Buffers, Buffers]:
        """Allocate the parameters, the running statistics, and the arrays that describe the input.

        Parameters
        ----------
        models : tuple of int
            ``(models,)``, or ``()`` for one network.
        device : Device
            Where.
        dtype : str
            The dtype of all.

        Returns
        -------
        tuple of Buffers
            Parameters, statistics, and inputs.
        """
        first = self.weights[:1]
        groups = [first, self.weights[len(first) :], [p for p in self.parameters if p not in self.weights]]
        inputs = self.inputs
        running = [s for s in self.statistics if s not in inputs]
        shaped = [{name: self.shapes[name] for name in group} for group in groups if group]
        return (
            Buffers(shaped, models, device, dtype, wide=first[0]),
            Buffers([{s: self.shapes[s] for s in running}] if running else [], models, device, dtype),
            Buffers([{s: self.shapes[s] for s in inputs}] if inputs else [], (), device, dtype),
        )

    def initialize(self, arrays: Mapping[str, Array], seed: int | Sequence[int], device: Device, dtype: str) -> None:
        """Write the initial values into ``arrays``: draws of (seed, name), the same on every backend.

        Parameters
        ----------
        arrays : mapping of str to array
            What to write to, by name.
        seed : int or sequence of int
            One seed, or one for each model.
        device : Device
            Where the arrays lie.
        dtype : str
            Their dtype.
        """
        for layer, names in zip(self.layers, self._names, strict=True):
            for own, name in zip((*layer.parameters, *layer.statistics), names, strict=True):
                value = layer.initial(own)
                if hasattr(value, "std"):
                    shape = self.shapes[name]
                    value = device.asarray(random.normal(seed, name, shape, value.std(*shape)), dtype)
                arrays[name][...] = value

    def noise_shapes(self, n: int) -> dict[str, tuple[int, int]]:
        """Give the shapes of the uniform draws that training on ``n`` examples takes, by name.

        Parameters
        ----------
        n : int
            Examples in the batch.

        Returns
        -------
        dict of str to tuple of int
            ``(n, features)`` for each layer that draws.
        """
        noisy = [width for layer, width in zip(self.layers, self.widths, strict=True) if layer.noisy]
        return {f"noise{i + 1}": (n, width) for i, width in enumerate(noisy)}

    def forward(
        self, arrays: Mapping[str, Array], x: Array, *, train: bool = False, noise: Mapping[str, Array] | None = None
    ) -> tuple[Array, Callable[..., tuple[Array | None, dict[str, Array]]], list[Array]]:
        """Give the outputs, the pullback and the batch's statistics.

        Parameters
        ----------
        arrays : mapping of str to array
            Parameters and running statistics by name.
        x : array of shape (n, in_features), or (*models, n, in_features)
            The input; models share one without model axes.
        train : bool
            Use the batch's statistics, and drop out.
        noise : mapping of str to array
            Uniform draws for the dropout layers, of the shapes that ``noise_shapes`` gives.

        Returns
        -------
        outputs : array of shape (*models, n, out_features)
            What the last layer gives.
        pullback : function
            From the outputs' gradient to the input's (None if not asked for) and a dict of the parameters'.
            ``into`` names arrays to write the gradients to.
        statistics : list of array
            The batch's value of each running statistic, in the order of ``statistics``.
        """
        outputs, back, statistics = Wired(self, arrays).forward(x, train=train, noise=noise)

        def pullback(
            dy: Array, into: Mapping[str, Array] | None = None, wrt_input: bool = True
        ) -> tuple[Array | None, dict[str, Array]]:
            dx, found = back(dy, self.own(into) if into else None, wrt_input)
            named = zip(self._names, found, strict=True)
            return dx, {name: a for names, own in named for name, a in zip(names, own, strict=False)}

        return outputs, pullback, statistics

    def own(self, arrays: Mapping[str, Array]) -> list[list[Array]]:
        """Give each layer's parameters among ``arrays``, in its order.

        Parameters
        ----------
        arrays : mapping of str to array
            Arrays by name, or what stands for them.

        Returns
        -------
        list of list of array
            Layer by layer.
        """
        named = zip(self.layers, self._names, strict=True)
        return [[arrays[name] for name in names[: len(layer.parameters)]] for layer, names in named]

    def config(self) -> dict[str, Any]:
        """Describe the network in plain values (JSON).

        Returns
        -------
        dict
            What files hold of the layers.
        """
        return {"in_features": self.in_features, "layers": [describe(layer) for layer in self.layers]}


class Wired:
    """A ``Sequential`` whose arrays are looked up once, for those who call it again and again.

    Parameters
    ----------
    network : Sequential
        The layers.
    arrays : mapping of str to array
        Parameters and running statistics by name; they may change in place.
    """

    def __init__(self, network: Sequential, arrays: Mapping[str, Array]) -> None:
        named = zip(network.layers, network._names, strict=True)
        self._rows = [(layer, [arrays[name] for name in names], layer.noisy) for layer, names in named]
        # The pass back may end at the first layer that has parameters.
        self._first = next((i for i, layer in enumerate(network.layers) if layer.parameters), 0)

    def forward(
        self, x: Array, *, train: bool = False, noise: Mapping[str, Array] | None = None
    ) -> tuple[Array, Callable[..., tuple[Array | None, list[Sequence[Array]]]], list[Array]]:
        """Do what ``Sequential.forward`` does, with a pullback that takes and gives lists, layer by layer."""
        pullbacks: list[Any] = []
        statistics: list[Array] = []
        drawn = 0
        for layer, arrays, noisy in self._rows:
            u = None
            if noisy and noise:
                drawn += 1
                u = noise[f"noise{drawn}"]
            x, pull, batch = layer.forward(x, *arrays, train=train, noise=u)
            pullbacks.append(pull)
            statistics += batch

        def pullback(
            dy: Array, into: Sequence[Sequence[Array]] | None = None, wrt_input: bool = True
        ) -> tuple[Array | None, list[Sequence[Array]]]:
            found: list[Sequence[Array]] = [()] * len(pullbacks)
            dx: Array | None = dy
            for i in range(len(pullbacks) - 1, -1 if wrt_input else self._first - 1, -1):
                to = into[i] if into else ()
                dx, own = pullbacks[i](dx, to, wrt_input or i > self._first)
                found[i] = own
                for a, b in zip(to, own, strict=False):
                    if a is not None and a is not b:
                        a[...] = b
            return dx if wrt_input else None, found

        return x, pullback, statistics


def mlp(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    batch_norm: bool = False,
    dropout: Any = 0.0,
    initializer: Initializer | None = None,
    standardize: bool = False,
) -> Sequential:
    """Make a multilayer perceptron: Linear, BatchNorm, ReLU, Dropout for each hidden layer, then Linear.

    Parameters
    ----------
    in_features : int
        Width of the input.
    hidden : sequence of int
        Widths of the hidden layers; empty for a linear model.
    out_features : int
        Width of the output.
    batch_norm : bool
        Normalise each hidden layer before its ReLU.
    dropout : float or sequence of float
        Rate of the dropout after each ReLU; 0 leaves the layer out.
    initializer : Initializer, optional
        Of the weight matrices, He by default.
    standardize : bool
        Begin with a layer that standardises the features with the training data's mean and deviation.

    Returns
    -------
    Sequential
        The layers; they hold no arrays.
    """
    weights = initializer or He()
    if not hasattr(weights, "std"):
        raise TypeError(f"mlp: expected an initializer, like xpnet.He(), got {initializer!r}")
    if not hasattr(hidden, "__len__"):
        raise TypeError(f"mlp: expected the hidden widths as a sequence, like [50, 50], got {hidden!r}")
    layers: list[Layer] = [Standardize()] if standardize else []
    for width in hidden:
        layers.append(Linear(width, weights))
        if batch_norm:
            layers.append(BatchNorm())
        layers.append(ReLU())
        if is_array(dropout) or dropout:
            layers.append(Dropout(dropout))
    return Sequential(in_features, [*layers, Linear(out_features, weights)])


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
        missing = [name for name in architecture.shapes if name not in arrays]
        if missing:
            raise ValueError(f"the network needs arrays named {', '.join(missing)}; got {', '.join(arrays) or 'none'}")
        for name, shape in architecture.shapes.items():
            got = tuple(arrays[name].shape)
            if got[max(len(got) - len(shape), 0) :] != shape:
                raise ValueError(f"{name}: expected shape {shape} (behind any model axes), got {got}")
            if not namespace(arrays[name]).isdtype(arrays[name].dtype, ("real floating", "complex floating")):
                raise TypeError(f"{name}: expected floating-point numbers, got dtype {arrays[name].dtype}")
        self.architecture: Sequential = architecture
        self.arrays: dict[str, Array] = dict(arrays)
        self.device: Device = check_same_device(**self.arrays)

    def __repr__(self) -> str:
        return f"Network({self.architecture!r} on {self.device.name})"

    def __call__(self, x: Array, *, block: int = 1000) -> Array:
        """Give the outputs for x (n, in_features) as (*models, n, out_features), block by block.

        Raises
        ------
        ValueError
            If x has another width or lies on another device.
        """
        x = check_features(from_dlpack(x) if hasattr(x, "__dlpack__") else x, self.architecture, self.device)
        xp, dtype = self.device.xp, self.arrays[self.architecture.parameters[0]].dtype
        parts = []
        with self.device.activate():
            for rows in blocks(x.shape[-2], block):
                part = to_float(x[..., rows, :], self.architecture, dtype)
                parts.append(self.architecture.forward(self.arrays, part)[0])
            return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)

    def predict_proba(self, x: Array) -> Array:
        """Give the classes' probabilities (*models, n, classes).

        Parameters
        ----------
        x : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (*models, n, classes)
            Each row sums to 1.
        """
        with self.device.activate():
            return softmax(self(x))

    def predict(self, x: Array) -> Array:
        """Give the index of the likeliest class (*models, n).

        Parameters
        ----------
        x : array of shape (n, features)
            The features.

        Returns
        -------
        array of int, shape (*models, n)
            Out of 0 to classes - 1.
        """
        with self.device.activate():
            return self.device.xp.argmax(self(x), axis=-1)

    def member(self, index: int) -> Network:
        """Give one model of several as an ordinary network.

        Parameters
        ----------
        index : int
            Which one.

        Returns
        -------
        Network
            With copies of its arrays.
        """
        shapes = self.architecture.shapes
        one = {name: a[index, ...] if a.ndim > len(shapes[name]) else a for name, a in self.arrays.items()}
        layers = [pick(layer, index) for layer in self.architecture.layers]
        return Network(Sequential(self.architecture.in_features, layers), one)

    def save(self, path: str | Path) -> None:
        """Write the arrays and the architecture to a safetensors file; ``load`` reads it.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        from .checkpoint import save_network

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
        from .checkpoint import load_network

        return load_network(path, device)

    def summary(self) -> str:
        """Give the layers as a text table: output shapes, parameters, operations; ``summary.layers`` gives rows.

        Returns
        -------
        str
            A line for each layer, then the totals.
        """
        from .summary import summary

        return summary(self)

    def to_npz(self, path: str | Path) -> None:
        """Write the arrays and the architecture to an npz file: see ``convert.save_npz``.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        from .convert import save_npz

        save_npz(path, self)

    @classmethod
    def from_npz(
        cls, path: str | Path, architecture: Sequential | None = None, device: str | Device = "cpu"
    ) -> Network:
        """Read an npz file, of ``to_npz`` or of arrays alone: see ``convert.load_npz``.

        Parameters
        ----------
        path : path
            The file.
        architecture : Sequential, optional
            The layers, where the file does not tell them.
        device : str or Device
            Where the network will lie.
        """
        from .convert import load_npz

        return load_npz(path, architecture, device)

    def to_torch(self) -> dict[str, Any]:
        """Give the state dict of the torch ``Sequential`` with the same layers: see ``convert.to_torch``.

        Returns
        -------
        dict of str to array
            Float arrays on the host, named ``0.weight`` and so on.
        """
        from .convert import to_torch

        return to_torch(self)

    @classmethod
    def from_torch(
        cls, architecture: Sequential, state: Mapping[str, Any], device: str | Device = "cpu"
    ) -> Network:
        """Make a network of a torch module's state dict: see ``convert.from_torch``.

        Parameters
        ----------
        architecture : Sequential
            The layers.
        state : mapping of str to array
            What the module's ``state_dict()`` gives.
        device : str or Device
            Where the network will lie.
        """
        from .convert import from_torch

        return from_torch(architecture, state, device)

    def fold(self) -> Network:
        """Give a network that predicts the same without batch norm and dropout: see ``convert.fold``.

        Returns
        -------
        Network
            Of Linear and ReLU alone.
        """
        from .convert import fold

        return fold(self)

    def to_onnx(
        self, path: str | Path | None = None, *, input_dtype: str | None = None, softmax: bool = False
    ) -> Any:
        """Give the ONNX model, and write it where a path is given: see ``onnx_export.to_onnx``.

        Parameters
        ----------
        path : path, optional
            The file to write.
        input_dtype : str, optional
            What the model takes; the network's dtype by default.
        softmax : bool
            Give probabilities rather than the network's outputs.

        Returns
        -------
        onnx.ModelProto
            The model.
        """
        from .onnx_export import to_onnx

        return to_onnx(self, path, input_dtype=input_dtype, softmax=softmax)


def to_float(x: Array, architecture: Sequential, dtype: Any) -> Array:
    """Bring a batch to the network's dtype, unless the network itself begins by doing so."""
    if x.dtype == dtype or (isinstance(architecture.layers[0], Standardize) and not namespace(x).isdtype(
            x.dtype, "real floating")):
        return x
    return namespace(x).astype(x, dtype)


def check_features(x: Array, architecture: Sequential, device: Device) -> Array:
    """See that ``x`` is an input for the network: its kind, its width, its device."""
    if not hasattr(x, "shape"):
        raise TypeError(f"features: expected an array of shape (n, {architecture.in_features}), got "
                        f"{type(x).__name__}; wrap it in numpy.asarray(...)")
    here = Device.of(x)
    if here != device:
        raise ValueError(f"features are on {here.name}, the network on {device.name}; bring them together with "
                         f"network.device.asarray(x)")
    xp = device.xp
    if x.ndim < 2 or x.shape[-1] != architecture.in_features:
        raise ValueError(f"features: expected shape (n, {architecture.in_features}), got {tuple(x.shape)}")
    if not xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
        raise TypeError(f"features: expected real numbers, got dtype {x.dtype}")
    return x
