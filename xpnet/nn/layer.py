"""What all layers have in common, and their registry.

``forward(x, *parameters, *statistics, train=..., noise=...)`` returns the output, a pullback, and what the
batch says of the running statistics. ``pullback(dy)`` returns the gradient with respect to the input, and a tuple of
those of the parameters in their order. Each is an array, or a ``Deferred`` that is formed by whoever wants it. Arrays
come in and go out by the names that the layer declares; a layer holds none.

Axes: the last is features, the one before it the batch, and those in front are independent models. No layer
asks how many there are: it broadcasts. A parameter of shape (*models, ...) or a plain one will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, overload

from ..backend import Array, Deferred

__all__ = ["LAYERS", "Forward", "Gradients", "Layer", "layer"]

Gradients = tuple[Array | Deferred, tuple[Array | Deferred, ...]]
Forward = tuple[Array, Callable[[Array], Gradients], tuple[Array, ...]]
LAYERS: dict[str, type[Layer]] = {}
_L = TypeVar("_L", bound="Layer")


@overload
def layer(kind: type[_L]) -> type[_L]: ...


@overload
def layer(*, example: Mapping[str, Any]) -> Callable[[type[_L]], type[_L]]: ...


def layer(kind: type[_L] | None = None, *, example: Mapping[str, Any] | None = None) -> Any:
    """Register a layer under its name: files can name it, and its example is what gradients are proven on.

    ``@layer`` takes the layer with its fields' defaults as the example, ``@layer(example={"out_width": 3})`` that with
    these fields. The gradient check, the comparison of backends and the tests of all layers use it.

    Parameters
    ----------
    kind : type
        A frozen dataclass.
    example : mapping, optional
        Fields of the example.

    Returns
    -------
    type
        The class itself.

    Raises
    ------
    TypeError
        If there is no layer with these fields.
    """

    def register(cls: type[_L]) -> type[_L]:
        try:
            cls.example = cls(**example or {})
        except TypeError as error:
            raise TypeError(f"layer: {cls.__name__} needs an example, like @layer(example={{'out_width': 3}}): {error}"
                            ) from error
        LAYERS[cls.__name__] = cls
        return cls

    return register if kind is None else register(kind)


class Layer:
    """Base of all layers: the names of their arrays, and what other modules need to know about them.

    See the module's text for ``forward``.
    """

    example: ClassVar[Layer]  # set by ``layer``
    parameters: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()  # those of the parameters that the L2 penalty takes
    biases: ClassVar[tuple[str, ...]] = ()  # those that are only added to the output
    statistics: ClassVar[tuple[str, ...]] = ()  # vectors; the first batch sets them
    positive: ClassVar[tuple[str, ...]] = ()  # those of the arrays whose entries are above 0
    momentum: float = 0.9  # the running statistics' share that stays at each later update
    noisy: ClassVar[bool] = False  # takes uniform draws of its input's shape when it trains
    least_batch: ClassVar[int] = 1  # the fewest examples that it can train on
    cancels_bias: ClassVar[bool] = False  # a constant added to each feature of its input changes nothing in training
    kinked: ClassVar[bool] = False  # the derivative jumps where an entry of the input is 0
    #: Its two statistics are an offset and a scale that describe the input, and its output is (x - offset) * scale.
    scales_input: ClassVar[bool] = False

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array, for an input of ``features`` features.

        Parameters
        ----------
        features : int
            Width of the input.

        Returns
        -------
        dict of str to tuple of int
            By the array's name; the model axis is left out.
        """
        return {}

    def initial(self, name: str) -> Any:
        """Return the value that array ``name`` starts from: a number, or an initializer.

        Parameters
        ----------
        name : str
            The array's name.

        Returns
        -------
        float or Initializer
            Where it starts from.
        """
        return 0.0

    def out_features(self, features: int) -> int:
        """Return the width of the output, for an input of ``features`` features.

        Parameters
        ----------
        features : int
            Width of the input.

        Returns
        -------
        int
            Width of the output.
        """
        return features

    def flops(self, features: int) -> int | None:
        """Return the floating-point operations of one example's prediction.

        An addition, a multiplication and a comparison count as one each.

        Parameters
        ----------
        features : int
            Width of the input.

        Returns
        -------
        int or None
            None if the layer does not say.
        """
        return None

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Return the output, the pullback, and the batch's statistics.

        Parameters
        ----------
        x : array of shape (..., n, k)
            The input.
        *arrays : array
            Parameters, then running statistics, in the order of their names.
        train : bool
            Use the batch's statistics, and draw.
        noise : array of shape (n, k), optional
            Uniform draws in [0, 1), for a layer that is noisy.

        Returns
        -------
        tuple
            The output (..., n, m); the pullback, from the output's gradient to the input's and a tuple of the
            parameters'; and a tuple of the batch's statistics.
        """
        raise NotImplementedError
