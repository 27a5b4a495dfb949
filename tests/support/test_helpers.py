"""Canaries: every test helper fails when it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import HostReadError, assert_close, assert_same, blobs, difference, draw, eps, no_host_reads

from xpnet.backend import Device, to_numpy


def test_difference_sees_values_shapes_and_nan() -> None:
    a = np.asarray([1.0, -4.0])
    assert difference(a, a) == 0.0
    assert difference([1.0, -3.0], a) == 0.25
    assert difference([[1.0, -4.0]], a) == float("inf")
    assert difference([1.0, np.nan], a) == difference(a, [1.0, np.inf]) == float("inf")
    assert difference([2.0], [0.0]) == 2.0


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "about", "runs"), [
    ("strict", "", False), ("strict", '@pytest.mark.backends("strict")', True), ("strict,numpy", "", True),
])
def test_tests_of_the_host_run_with_numpy_or_where_they_belong(
    chosen: str, about: str, runs: bool, tmp_path: Path
) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(f"import pytest\n{about}\ndef test_it(): ...\ndef test_too(device): ...\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], check=True,
                          env={**os.environ, "XPNET_BACKENDS": chosen}, cwd=tmp_path, capture_output=True, text=True)
    count = len(chosen.split(",")) + runs
    assert f"{count} passed" in done.stdout
    assert ("1 deselected" in done.stdout) is not runs


def test_assert_close_fails_on_a_difference() -> None:
    assert_close([1.0 + 1e-9], [1.0], 1e-8)
    with pytest.raises(AssertionError, match="W1: they differ by 1e-07"):
        assert_close([1.0 + 1e-7], [1.0], 1e-8, "W1")
    with pytest.raises(AssertionError, match="shapes"):
        assert_close([1.0], 1.0, 1e-8)


def test_assert_same_fails_on_one_bit_a_dtype_and_a_missing_name() -> None:
    a = {"W": np.ones(2), "rows": [{"loss": 1.0}]}
    assert_same(a, {"W": np.ones(2), "rows": [{"loss": 1.0}]})
    for b in (
        {"W": np.nextafter(np.ones(2), 2), "rows": [{"loss": 1.0}]},
        {"W": np.ones(2, np.float32), "rows": [{"loss": 1.0}]},
        {"W": np.ones(2)},
        {"W": np.ones(2), "rows": []},
        {"W": np.ones(2), "rows": [{"loss": -1.0}]},
    ):
        with pytest.raises(AssertionError):
            assert_same(a, b)
    assert_same([np.nan], [np.nan])  # the same NaN is the same bits


def test_eps_and_data_are_what_they_say(device: Device) -> None:
    assert eps("float32") > 1e-8 > eps("float64")
    x, y = blobs(device, 10, 4, 3)
    assert to_numpy(x).shape == (10, 4)
    assert to_numpy(x).dtype == np.float32
    assert sorted(set(to_numpy(y).tolist())) == [0, 1, 2]
    assert Device.of(x) == Device.of(draw(device, "x", (2,))) == device
    assert to_numpy(draw(device, "x", (2,))).tolist() != to_numpy(draw(device, "z", (2,))).tolist()


@pytest.mark.backends("strict")
def test_host_reads_are_refused_inside_and_allowed_after(device: Device) -> None:
    a = device.xp.ones((), device=device.native)
    for read in (float, bool, int, complex, np.asarray, lambda x: [1, 2][x]):
        with no_host_reads(device), pytest.raises((HostReadError, TypeError)):
            read(a)
    with no_host_reads(device):
        a + 1.0
    assert float(a) == 1.0
