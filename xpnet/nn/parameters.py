"""Named arrays that are views of a few flat ones.

An optimiser then is a few operations whatever the depth, and gradients are written where it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..backend import Array, Device

__all__ = ["Buffers"]


class Buffers:
    """Flat arrays (``segments``) and the named arrays in them (``views``).

    Parameters
    ----------
    groups : sequence of mapping
        For each segment, the names and shapes of its arrays, the model axis left out.
    models : tuple of int
        The model axes, in front of every array; () for one network.
    device : Device
        Where the arrays live.
    dtype : str
        Their dtype.
    wide : str
        Name of the matrix whose models lie side by side, row by row: (in, models, out) in memory. It is
        the first layer's, whose product with a shared minibatch then is one product, and it must have its
        segment for itself.

    Notes
    -----
    A segment is (size,) for one network and (*models, size) for several, the wide one (in, *models, out):
    so a hyper-parameter of shape (*models, 1) broadcasts against all of them.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, tuple[int, ...]]],
        models: tuple[int, ...],
        device: Device,
        dtype: str,
        wide: str = "",
    ) -> None:
        self._arguments = (groups, models, device, dtype, wide)
        xp = device.xp
        self.segments: list[Array] = []
        self.views: dict[str, Array] = {}
        self.names: list[tuple[str, ...]] = [tuple(group) for group in groups]
        for group in groups:
            if wide in group and models:
                rows, columns = group[wide]
                flat = device.empty((rows, *models, columns), dtype)
                self.views[wide] = xp.moveaxis(flat, 0, -2)
            else:
                sizes = [_size(shape) for shape in group.values()]
                flat = device.empty((*models, sum(sizes)), dtype)
                start = 0
                for (name, shape), size in zip(group.items(), sizes, strict=True):
                    self.views[name] = xp.reshape(flat[..., start : start + size], (*models, *shape), copy=False)
                    start += size
            self.segments.append(flat)

    def like(self) -> Buffers:
        """Return zeros in the same layout."""
        return Buffers(*self._arguments)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
