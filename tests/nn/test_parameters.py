"""Buffers: named arrays are views of flat ones, for one model and for many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.backend import Device, to_numpy
from xpnet.nn.parameters import Buffers

GROUPS = [{"W1": (4, 3)}, {"W2": (3, 2), "W3": (2, 2)}, {"b1": (3,), "gamma1": (3,)}]


@pytest.mark.parametrize("models", [(), (1,), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("wide", ["", "W1"])
def test_views_and_segments_are_the_same_memory(device: Device, models: tuple[int, ...], wide: str) -> None:
    buffers = Buffers(GROUPS, models, device, "float64", wide)
    assert list(buffers.views) == ["W1", "W2", "W3", "b1", "gamma1"]
    assert buffers.names == [("W1",), ("W2", "W3"), ("b1", "gamma1")]
    shapes = {name: shape for group in GROUPS for name, shape in group.items()}
    values = {}
    for i, (name, view) in enumerate(buffers.views.items()):
        assert tuple(view.shape) == (*models, *shapes[name])
        assert Device.of(view) == device
        values[name] = np.arange(view.size if isinstance(view.size, int) else view.numel(), dtype=float) + 100.0 * i
        view[...] = device.asarray(values[name].reshape(view.shape))
    for names, segment in zip(buffers.names, buffers.segments, strict=True):
        got = np.sort(to_numpy(segment).ravel())
        assert got.tolist() == sorted(np.concatenate([values[name] for name in names]).tolist())
    for segment in buffers.segments:
        segment *= 2.0
    for name, view in buffers.views.items():
        assert to_numpy(view).ravel().tolist() == (2.0 * values[name]).tolist()


@pytest.mark.parametrize("models", [(3,), (2, 3)], ids=str)
def test_a_factor_per_model_meets_its_model_in_every_segment(device: Device, models: tuple[int, ...]) -> None:
    buffers = Buffers(GROUPS, models, device, "float64", "W1")
    factor = np.arange(1.0, 1.0 + np.prod(models)).reshape(*models, 1)
    for segment in buffers.segments:
        segment += 1.0
        segment *= device.asarray(factor)
    for name, view in buffers.views.items():
        for m in np.ndindex(*models):
            assert set(to_numpy(view)[m].ravel().tolist()) == {float(factor[m][0])}, name


def test_the_wide_matrix_lies_row_by_row(device: Device) -> None:
    buffers = Buffers(GROUPS, (2,), device, "float32", "W1")
    assert [tuple(s.shape) for s in buffers.segments] == [(4, 2, 3), (2, 10), (2, 6)]
    assert [tuple(s.shape) for s in Buffers(GROUPS, (), device, "float32", "W1").segments] == [(12,), (10,), (6,)]
    assert [tuple(s.shape) for s in Buffers(GROUPS, (2,), device, "float32").segments] == [(2, 12), (2, 10), (2, 6)]


def test_buffers_start_at_zero_and_like_gives_others(device: Device) -> None:
    buffers = Buffers(GROUPS, (2,), device, "float32", "W1")
    other = buffers.like()
    assert not any(to_numpy(s).any() for s in (*buffers.segments, *other.segments))
    assert other.names == buffers.names
    other.segments[0] += 1.0
    assert not to_numpy(buffers.segments[0]).any()
    assert [s.dtype for s in other.segments] == [s.dtype for s in buffers.segments]


@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5),
    models=st.sampled_from([(), (2,), (1, 3)]),
)
def test_any_shapes_fill_a_segment_without_gaps(
    device: Device, shapes: list[tuple[int, ...]], models: tuple[int, ...]
) -> None:
    buffers = Buffers([{str(i): shape for i, shape in enumerate(shapes)}], models, device, "float64")
    for i, view in enumerate(buffers.views.values()):
        view += float(i + 1)
    (segment,) = buffers.segments
    expected = np.concatenate([np.full(int(np.prod(shape)), i + 1.0) for i, shape in enumerate(shapes)])
    assert np.array_equal(to_numpy(segment), np.broadcast_to(expected, segment.shape))
