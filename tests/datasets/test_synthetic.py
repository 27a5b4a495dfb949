"""The synthetic data set: its shape, balance, streams and difficulty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import datasets
from xpnet.datasets import _synthetic

# Three pixels of each of the first two images, and the first ten labels, for seed 0.
PINNED_PIXELS = [[132, 77, 56], [102, 114, 144]]
PINNED_LABELS = [8, 1, 4, 9, 3, 6, 0, 5, 7, 2]


def imbalance(labels: np.ndarray) -> int:
    """Return the difference between the largest and the smallest class."""
    counts = np.bincount(labels, minlength=10)
    return int(counts.max() - counts.min())


def test_imbalance_sees_a_missing_class() -> None:
    assert imbalance(np.repeat(np.arange(9), 2)) == 2
    assert imbalance(np.arange(10)) == 0


def test_it_has_the_shape_of_cifar10() -> None:
    data = datasets.synthetic(train=30, validation=20, test=10)
    assert data.name == "synthetic"
    assert data.source == "generated, seed 0"
    assert data.image_shape == (3, 32, 32)
    assert len(data.classes) == len(set(data.classes)) == 10
    for split, size in ((data.train, 30), (data.validation, 20), (data.test, 10)):
        assert (split.x.shape, split.x.dtype) == ((size, 3072), np.uint8)
        assert (split.y.shape, split.y.dtype) == ((size,), np.int64)
    images = datasets.synthetic(train=100, validation=0, test=0).train.x
    assert images.std() > 30
    assert 0 < np.mean((images == 0) | (images == 255)) < 0.1  # few pixels are saturated


def test_the_images_are_pinned() -> None:
    """Other images would change every number measured on them: a reason to say so in the change log."""
    train = datasets.synthetic(train=10, validation=0, test=0).train
    assert train.y.tolist() == PINNED_LABELS
    near = np.array(PINNED_PIXELS)  # within one grey level: sines differ in the last bit between machines
    assert np.abs(train.x[:2, [0, 1500, 3071]].astype(int) - near).max() <= 1


@settings(max_examples=8)
@given(size=st.integers(0, 1_100))
def test_a_smaller_split_is_the_start_of_a_larger_one(size: int) -> None:
    large = datasets.synthetic(train=1_100, validation=0, test=0).train
    small = datasets.synthetic(train=size, validation=0, test=0).train
    np.testing.assert_array_equal(small.x, large.x[:size])
    np.testing.assert_array_equal(small.y, large.y[:size])
    assert imbalance(small.y) <= 1


def test_splits_blocks_and_seeds_differ() -> None:
    size = _synthetic.BLOCK
    data = datasets.synthetic(train=2 * size, validation=size, test=size)
    other = datasets.synthetic(train=size, validation=0, test=0, seed=1)
    parts = [data.train.x[:size], data.train.x[size:], data.validation.x, data.test.x, other.train.x]
    for i, one in enumerate(parts):
        for two in parts[:i]:
            assert np.abs(one.astype(int) - two).mean() > 20


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_negative_size_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1"):
        datasets.synthetic(**{name: -1})


def test_a_size_or_seed_that_is_no_integer_is_refused() -> None:
    with pytest.raises(TypeError):
        datasets.synthetic(train=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        datasets.synthetic(train=10, seed="0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        datasets.synthetic(train=10, seed=-1)


def accuracy(features: np.ndarray, labels: np.ndarray, train: int) -> float:
    """Return the test accuracy of a ridge regression on one-hot labels, fitted to the first ``train`` rows."""
    x = np.hstack([features, np.ones((len(features), 1))])
    targets = np.eye(10)[labels[:train]] - 0.1
    gram = x[:train].T @ x[:train] + 0.3 * train * np.eye(x.shape[1])
    scores = x[train:] @ np.linalg.solve(gram, x[:train].T @ targets)
    return float(np.mean(scores.argmax(axis=1) == labels[train:]))


def test_classes_are_structures_and_not_pixels() -> None:
    """A linear classifier is weak on pixels, and stronger on spectra, which do not see shifts."""
    data = datasets.synthetic(train=4_000, validation=0, test=0)
    grey = data.train.x.reshape(-1, 3, 32, 32).mean(axis=1).astype(np.float64)
    spectrum = np.log1p(np.abs(np.fft.rfft2(grey - grey.mean(axis=(1, 2), keepdims=True))))

    def standardised(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1)
        return (flat - flat.mean(axis=0)) / (flat.std(axis=0) + 1e-9)

    pixels = accuracy(standardised(grey), data.train.y, 3_000)
    spectra = accuracy(standardised(spectrum), data.train.y, 3_000)
    assert 0.1 < pixels < 0.45
    assert spectra > pixels + 0.1


def test_colour_and_brightness_do_not_tell_the_class() -> None:
    data = datasets.synthetic(train=4_000, validation=0, test=0).train
    channels = data.x.reshape(-1, 3, 1024).astype(np.float64)
    features = np.hstack([channels.mean(axis=2), channels.std(axis=2)])
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    assert accuracy(features, data.y, 3_000) < 0.25
