"""Features with their labels: what training, evaluation and ensembles accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backend import Array, Device, check_same_device, namespace, ops_of
from ..datasets.admission import NotFiniteError, admit, check_finite
from .losses import Loss
from .per_model import integer
from .sequential import Sequential

__all__ = ["blocks", "check_examples", "check_features", "refuse_outputs", "to_float"]


def check_examples(
    x: Array, y: Array, architecture: Sequential, loss: Loss, device: Device, *, dtype: str,
    scaling: tuple[Array, Array] | None = None, move: bool = False, what: str = "",
) -> tuple[Array, Array]:
    """Return features and labels on the device after checking that they fit the network, the loss and each other.

    Parameters
    ----------
    x, y : array
        Features and labels of any library.
    architecture : Sequential
        The network's layers.
    loss : Loss
        It knows the shapes of labels.
    device : Device
        Where they must be.
    dtype : str
        The network's, which must hold them.
    scaling : tuple of array, optional
        Offset and scale of a network that standardises and was trained.
    move : bool
        Whether to copy them there from elsewhere.
    what : str
        How errors name them, such as ``"validation "``.

    Raises
    ------
    ValueError, TypeError
        If they do not fit.
    NotFiniteError
        If there is NaN or infinity among them, or what the network's dtype does not hold.
    """
    with device.activate():
        x, y = admit(x, f"{what}features"), admit(y, f"{what}labels", real=False)
        if move:
            x, y = (a if Device.of(a) == device else device.asarray(a) for a in (x, y))
        x = check_features(x, architecture, device)
        x = ops_of(x).as_row_major(x, device.free_memory)
        check_same_device(x=x, y=y)
        outputs = architecture.out_features
        fitting = loss.shapes(outputs)
        if x.ndim != 2 or tuple(y.shape[1:]) not in fitting.values() or y.shape[:1] != x.shape[:1] or not x.shape[0]:
            raise ValueError(
                f"{what}data: expected features (n, {architecture.in_features}) and {' or '.join(fitting)} with n "
                f"at least 1, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
                + ("; use y[:, 0] for a column of labels, y.argmax(axis=-1) for one-hot rows" if y.ndim == 2 else "")
            )
        kind = None if architecture.scales_input and scaling is None else getattr(device.xp, dtype)
        check_finite(x, f"{what}features", dtype=kind, scaling=scaling)
        y = loss.check(y, outputs, what)
        check_finite(y, f"{what}targets", dtype=getattr(device.xp, dtype))
        return x, y


def to_float(x: Array, architecture: Sequential, dtype: Any) -> Array:
    """Bring a batch to the network's dtype, unless the network itself begins by doing so."""
    if x.dtype == dtype or architecture.scales_input:
        return x
    return namespace(x).astype(x, dtype)


def check_features(x: Array, architecture: Sequential, device: Device) -> Array:
    """Return ``x`` as an array, having checked that it is an input for the network: its kind, its width, its device."""
    x = admit(x, "features")
    here = Device.of(x)
    if here != device:
        raise ValueError(f"features are on {here.name}, the network on {device.name}; bring them together with "
                         f"network.device.asarray(x)")
    if x.ndim < 2 or x.shape[-1] != architecture.in_features:
        raise ValueError(f"features: expected shape (n, {architecture.in_features}), got {tuple(x.shape)}")
    return x


def refuse_outputs(outputs: Any, arrays: Mapping[str, Array]) -> None:
    """Raise an error that names the rows with outputs, in host memory, that are not finite."""
    flags = abs(outputs) < float("inf")  # false for NaN too
    rows = (~flags.all(axis=(*range(outputs.ndim - 2), -1))).nonzero()[0].tolist()
    listed = ", ".join(map(str, rows[:5])) + (f", ... ({len(rows)} of {outputs.shape[-2]})" if len(rows) > 5 else "")
    bad = [name for name, a in arrays.items() if not bool(namespace(a).all(namespace(a).isfinite(a)))]
    raise NotFiniteError(
        f"the network's outputs are not finite for row(s) {listed}: "
        + (f"its arrays {', '.join(bad)} are not, since its training diverged; train it again at a lower rate" if bad
           else f"the features there are too large for its {outputs.dtype}; rescale them, or leave them out"))


def blocks(n: int, size: int = 1000) -> list[slice]:
    """Cut ``n`` examples into slices of at most ``size`` (one empty slice where there are none)."""
    integer("blocks", "the number of examples in one", size)
    return [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]
