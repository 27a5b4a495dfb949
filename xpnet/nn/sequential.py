"""Layers in a row: what a network is made of, without its arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import random
from ..backend import Array, Device
from .initializers import He, Initializer
from .layers import BatchNorm, Dropout, Layer, Linear, ReLU, Standardize
from .parameters import Buffers
from .per_model import bind, describe, flag, integer, is_array, lengths, number, shown
from .scaling import SCALING_DTYPE
from .wired import Wired

__all__ = ["Sequential", "mlp"]


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
    feature_names : sequence of str, optional
        What the input's features are called; files of a network keep them, and ``xpnet predict`` compares them.

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
    scales_input : bool
        Whether the first layer standardises the input, of any real dtype.
    least_batch : int
        The fewest examples that all layers can train on.
    """

    def __init__(
        self, in_features: int, layers: Sequence[Layer], feature_names: Sequence[str] | None = None
    ) -> None:
        in_features = integer("Sequential", "in_features", in_features)
        if not is_array(layers) or not (feature_names is None or is_array(feature_names)):
            raise TypeError(f"Sequential: expected lists, got {shown(layers)} and feature_names {shown(feature_names)}")
        names = None if feature_names is None else tuple(feature_names)
        if names is not None and (any(not isinstance(name, str) for name in names) or
                                  len(set(names)) != in_features or len(names) != in_features):
            raise ValueError(f"Sequential: expected feature_names of {in_features} different strings, one for each "
                             f"feature, got {str(list(names))[:200]}")
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: expected layers, got {layer!r} at place {i}; make it, like ReLU()")
            if i and layer.scales_input:
                kind = type(layer).__name__
                raise ValueError(f"Sequential: {kind} scales the input, so it comes first, not at place {i}")
        if not any(layer.parameters for layer in layers):
            raise ValueError("Sequential: expected at least one layer with parameters, like Linear, got none")
        self.in_features: int = in_features
        self.feature_names: tuple[str, ...] | None = names and tuple(str(name) for name in names)
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
        self.scales_input: bool = self.layers[0].scales_input
        self.inputs: tuple[str, ...] = self._names[0] if self.scales_input else ()
        self.least_batch: int = max(layer.least_batch for layer in self.layers)
        self.out_features = width

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # All follows from the layers; pickles of earlier versions lack what was derived from them since.
        vars(self).update(vars(Sequential(state["in_features"], state["layers"], state.get("feature_names"))))

    def __repr__(self) -> str:
        return f"Sequential({self.in_features}, {list(self.layers)})"

    def with_layers(self, layers: Sequence[Layer]) -> Sequential:
        """Return a network of other layers for the same input.

        Parameters
        ----------
        layers : sequence of Layer
            The layers, first to last.

        Returns
        -------
        Sequential
            With the number and the names of the features of this one.
        """
        return Sequential(self.in_features, layers, self.feature_names)

    def bind(self, device: Device, dtype: str) -> Sequential:
        """Return the same network with its hyper-parameter arrays on ``device``.

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
        return self.with_layers([bind(layer, device, dtype, axes=2) for layer in self.layers])

    def models(self) -> tuple[int, ...]:
        """Return the model axis that the layers' own hyper-parameters have, () for none.

        Returns
        -------
        tuple of int
            ``(models,)``, or ``()``.
        """
        sizes = {size for layer in self.layers for _, size in lengths(layer)}
        if len(sizes) > 1:
            raise ValueError(f"expected hyper-parameter arrays of one length, got lengths {sorted(sizes)}")
        return tuple(sizes)

    def has_model_axis(self, name: str, array: Array) -> bool:
        """Return whether each model has its own part of an array, rather than all models one array.

        Parameters
        ----------
        name : str
            The array's name, or that of an optimizer's array for it, like ``"velocity.W1"``.
        array : array
            The array itself.

        Returns
        -------
        bool
            True for an array (models, ...), False for one without the axis.
        """
        return bool(array.ndim > len(self.shapes[name.rpartition(".")[2]]))

    def allocate(self, models: tuple[int, ...], device: Device, dtype: str) -> tuple[Buffers, Buffers, Buffers]:
        """Allocate the parameters, the running statistics, and the arrays that describe the input.

        Parameters
        ----------
        models : tuple of int
            ``(models,)``, or ``()`` for one network.
        device : Device
            Where.
        dtype : str
            The dtype of all but the inputs, which are float64: see ``scaling``.

        Returns
        -------
        tuple of Buffers
            Parameters, statistics, and inputs.
        """
        first = self.weights[:1]
        matrix = any(len(self.shapes[name]) == 2 for name in first)
        groups = [first, self.weights[len(first) :], [p for p in self.parameters if p not in self.weights]]
        inputs = self.inputs
        running = [s for s in self.statistics if s not in inputs]
        shaped = [{name: self.shapes[name] for name in group} for group in groups if group]
        return (
            Buffers(shaped, models, device, dtype, wide=first[0] if matrix else ""),
            Buffers([{s: self.shapes[s] for s in running}] if running else [], models, device, dtype),
            Buffers([{s: self.shapes[s] for s in inputs}] if inputs else [], (), device, SCALING_DTYPE),
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
        """Return the shapes of the uniform draws that training on ``n`` examples takes, by name.

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
        """Return the outputs, the pullback and the batch's statistics.

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
            dx, found = back(dy, None if into is None else [into[name] for name in self.parameters], wrt_input)
            return dx, dict(zip(self.parameters, found, strict=True))

        return outputs, pullback, statistics

    def config(self) -> dict[str, Any]:
        """Describe the network in plain values (JSON).

        Returns
        -------
        dict
            What files hold of the layers.
        """
        named = {"feature_names": list(self.feature_names)} if self.feature_names else {}
        return {"in_features": self.in_features, "layers": [describe(layer) for layer in self.layers], **named}


def mlp(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    batch_norm: bool = False,
    dropout: Any = 0.0,
    initializer: Initializer | None = None,
    standardize: bool = False,
    feature_names: Sequence[str] | None = None,
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
        Initializer of the weight matrices, He by default.
    standardize : bool
        Begin with a layer that standardises the features with the training data's mean and deviation.
    feature_names : sequence of str, optional
        What the features are called.

    Returns
    -------
    Sequential
        The layers; they hold no arrays.
    """
    weights: Any = He() if initializer is None else initializer
    if isinstance(weights, type) or hasattr(weights, "dtype") or not hasattr(weights, "std"):
        raise TypeError(f"mlp: expected an initializer, like xpnet.He(), got {shown(initializer)}")
    if not is_array(hidden):
        raise TypeError(f"mlp: expected the hidden widths as a sequence, like [50, 50], got {shown(hidden)}")
    batch_norm = flag("mlp", "batch_norm", batch_norm)
    rate = dropout if is_array(dropout) else number("mlp", "dropout", 0.0 if dropout is None else dropout)
    layers: list[Layer] = [Standardize()] if flag("mlp", "standardize", standardize) else []
    for width in hidden:
        layers.append(Linear(width, weights))
        if batch_norm:
            layers.append(BatchNorm())
        layers.append(ReLU())
        if is_array(rate) or rate:
            layers.append(Dropout(rate))
    return Sequential(in_features, [*layers, Linear(out_features, weights)], feature_names)
