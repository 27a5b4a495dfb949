"""Features with their labels: what training, evaluation and ensembles accept."""

from __future__ import annotations

from ..backend import Array, Device, check_same_device, together
from ..datasets.admission import admit, check_finite
from .losses import Loss
from .sequential import Sequential, check_features

__all__ = ["check_examples"]


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
        x = together(check_features(x, architecture, device), device.free_memory)
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
