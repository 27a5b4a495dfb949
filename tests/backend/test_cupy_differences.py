"""Where CuPy differs from NumPy: what both do, row by row of ``docs/howto/cupy_differences.md``.

What xpnet does about each is in ``test_cupy_guards.py``.
"""

from __future__ import annotations

import copy
import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from xpnet.backend import Device, to_numpy

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "cupy_differences.md"
SMALL = 1e-20  # its square is below float32's normal range


class Case(NamedTuple):
    """A line of code, and what it gives, or raises: on NumPy, on CuPy 14, and on CuPy 13 where that differs."""

    code: Callable[[Any], Any]
    numpy: Any
    cupy: Any
    cupy13: Any = ...


def f4(xp: Any, *values: float) -> Any:
    """Make a float32 array."""
    return xp.asarray(values, dtype="float32")


def after(xp: Any, change: Callable[[Any], Any], *values: float) -> Any:
    """Make an array, change it, and return it."""
    x = xp.asarray(values)
    change(x)
    return x


def add_to_first(x: Any) -> None:
    first = x[0]
    first += 1


def add_to_each(x: Any) -> None:
    for value in x:
        value += 1


def writes_to_out(xp: Any) -> bool:
    out = xp.zeros((1, 1))
    return xp.matmul(xp.ones((1, 2)), xp.ones((2, 1)), out=out) is out


def write_in_broadcast(xp: Any) -> Any:
    x = xp.asarray([1.0, 2.0])
    xp.broadcast_to(x, (3, 2))[0, 0] = 7.0
    return x


def write_read_only(x: Any) -> None:
    x.flags.writeable = False
    x[0] = 7.0


def assign(value: Any, where: Any = ...) -> Callable[[Any], Any]:
    return lambda x: x.__setitem__(where, value)


#: By the row of the page's table.
ROWS: dict[str, dict[str, Case]] = {
    "Indices out of range": {
        "take": Case(lambda xp: xp.take(xp.asarray([1, 2, 3]), xp.asarray([3, -4])), IndexError, [1, 3]),
        "index": Case(lambda xp: xp.asarray([1, 2, 3])[xp.asarray([3, 5])], IndexError, [1, 3]),
        "zero axes": Case(lambda xp: xp.asarray([1, 2, 3])[xp.asarray(4)], IndexError, 2),
        "assign": Case(lambda xp: after(xp, assign(9, xp.asarray([3])), 1, 2, 3), IndexError, [9, 2, 3]),
        "along axis": Case(lambda xp: xp.take_along_axis(xp.asarray([1, 2]), xp.asarray([2]), 0), IndexError, [1]),
        "one integer": Case(lambda xp: xp.asarray([1, 2, 3])[3], IndexError, IndexError),
        "mask": Case(lambda xp: xp.asarray([1, 2, 3])[xp.asarray([True, False])], IndexError, IndexError),
    },
    "float32 numbers below 1.2e-38": {
        "product": Case(lambda xp: (f4(xp, SMALL) * f4(xp, SMALL)).tolist()[0] > 0.0, True, False),
        "exp": Case(lambda xp: xp.exp(f4(xp, -90.0)).tolist()[0] > 0.0, True, False),
        "comparison": Case(lambda xp: f4(xp, 1e-40) == 0.0, [False], [True]),
        "float64": Case(lambda xp: (xp.asarray([1e-160]) * xp.asarray([1e-160])).tolist()[0] > 0.0, True, True),
    },
    "`x[0]` of an array": {
        "in place": Case(lambda xp: after(xp, add_to_first, 0.0, 0.0), [0.0, 0.0], [1.0, 0.0]),
        "loop": Case(lambda xp: after(xp, add_to_each, 0.0, 0.0), [0.0, 0.0], [1.0, 1.0]),
    },
    "Single numbers": {
        "sum": Case(lambda xp: type(xp.ones(2).sum()).__name__, "float64", "ndarray"),
        "iteration": Case(lambda xp: [type(v).__name__ for v in xp.ones(1)], ["float64"], ["ndarray"]),
        "empty index": Case(lambda xp: type(xp.asarray(1.0)[()]).__name__, "float64", "ndarray"),
        "float": Case(lambda xp: isinstance(xp.ones(2).sum(), float), True, False),
        "key": Case(lambda xp: len({xp.ones(2).sum(): 0}), 1, TypeError),
        "json": Case(lambda xp: json.dumps(xp.ones(2).sum()), "2.0", TypeError),
        "round": Case(lambda xp: float(round(xp.asarray([1.26]).sum(), 1)), 1.3, TypeError),
        "range": Case(lambda xp: len(range(xp.asarray([3]).sum())), 3, TypeError),
        "list index": Case(lambda xp: ["a", "b"][xp.asarray([0, 1]).argmax()], "b", TypeError),
        "allclose": Case(lambda xp: xp.allclose(xp.ones(2), xp.ones(2)) is True, True, False),
    },
    "`clip`": {
        "lower": Case(lambda xp: xp.clip(xp.asarray([1.0, 2.0]), float("nan"), 1.5), [np.nan, np.nan], [1.0, 1.5]),
        "upper": Case(lambda xp: xp.clip(xp.asarray([1.0, 2.0]), 0.0, float("nan")), [np.nan, np.nan], [1.0, 2.0]),
        "complex": Case(lambda xp: xp.clip(xp.asarray([1 + 1j]), 0, 1), [1 + 0j], TypeError),
    },
    "Integers to a negative power": {
        "number": Case(lambda xp: xp.asarray([1, 2, -1]) ** -1, ValueError, [1, 0, -1]),
        "array": Case(lambda xp: xp.asarray([1, 2, -1]) ** xp.asarray([-1, -1, -1]), ValueError, [1, 0, -1]),
    },
    "Read-only arrays": {
        "broadcast_to": Case(write_in_broadcast, ValueError, [7.0, 2.0]),
        "flag": Case(lambda xp: after(xp, write_read_only, 1.0, 2.0), ValueError, [7.0, 2.0]),
    },
    "With NumPy's arrays": {
        "sum": Case(lambda xp: xp.ones(1) + np.ones(1), [2.0], TypeError),
        "other side": Case(lambda xp: np.ones(1) + xp.ones(1), [2.0], TypeError),
        "concatenate": Case(lambda xp: np.concatenate([xp.ones(1), np.ones(1)]), [1.0, 1.0], TypeError),
        "assign": Case(lambda xp: after(xp, assign(np.ones(2)), 0.0, 0.0), [1.0, 1.0], ValueError),
        "asarray": Case(lambda xp: np.asarray(xp.ones(1)), [1.0], TypeError),
        "list": Case(lambda xp: np.asarray([xp.asarray(1.0)]), [1.0], TypeError),
        "NumPy's function": Case(lambda xp: type(np.mean(xp.ones(1))).__module__, "numpy", "cupy"),
    },
    "With lists": {
        "assign": Case(lambda xp: after(xp, assign([1.0, 2.0]), 0.0, 0.0), [1.0, 2.0], ValueError, TypeError),
        "isin": Case(lambda xp: xp.isin(xp.asarray([1, 2]), [2]), [False, True], AttributeError),
    },
    "Text and other dtypes": {
        "comparison": Case(lambda xp: xp.ones(1) == "a", [False], TypeError),
        "text": Case(lambda xp: xp.asarray(["a"]), ["a"], ValueError),
        "objects": Case(lambda xp: xp.asarray([1, None], dtype=object), [1, None], ValueError),
        "dates": Case(lambda xp: str(xp.asarray(["2020-01-01"], dtype="M8[D]")[0]), "2020-01-01", ValueError),
        "long double": Case(lambda xp: float(xp.asarray([1.0], dtype="longdouble")[0]), 1.0, ValueError),
    },
    "Warnings": {
        "division": Case(lambda xp: xp.ones(1) / xp.zeros(1), RuntimeWarning, [np.inf]),
        "of integers": Case(lambda xp: xp.asarray([1]) // xp.asarray([0]), RuntimeWarning, [0]),
        "logarithm": Case(lambda xp: xp.log(xp.asarray([-1.0])), RuntimeWarning, [np.nan]),
        "mean of nothing": Case(lambda xp: xp.zeros(0).mean(), RuntimeWarning, np.nan),
        "overflow": Case(lambda xp: xp.asarray([1e300]).astype("float32"), RuntimeWarning, [np.inf]),
        "NaN to integer": Case(lambda xp: xp.asarray([np.nan]).astype("int64").shape, RuntimeWarning, (1,)),
        "errstate": Case(lambda xp: hasattr(xp, "errstate"), True, False),
    },
    "To the host and back": {
        "to_device": Case(lambda xp: hasattr(xp.ones(1), "to_device"), True, False),
        "namespace": Case(lambda xp: hasattr(xp.ones(1), "__array_namespace__"), True, False),
        "DLPack to the host": Case(lambda xp: np.from_dlpack(xp.ones(1)), [1.0], (RuntimeError, BufferError)),
        "DLPack from the host": Case(lambda xp: xp.from_dlpack(np.ones(1)), [1.0], TypeError),
    },
    "A device as a key": {"hash": Case(lambda xp: isinstance(hash(xp.ones(1).device), int), True, TypeError)},
    "Scalars and float32": {
        "NumPy's": Case(lambda xp: str((np.float64(2.0) * f4(xp, 1.0)).dtype), "float64", "float64", "float32"),
        "Python's": Case(lambda xp: str((f4(xp, 1.0) * 2.0).dtype), "float32", "float32"),
        "large": Case(lambda xp: str((f4(xp, 1.0) + 1e300).dtype), RuntimeWarning, RuntimeWarning, "float64"),
        "integer": Case(lambda xp: xp.asarray([1], dtype="uint8") + 300, OverflowError, OverflowError, [301]),
        "assigned": Case(lambda xp: after(xp, lambda x: x.view("uint8").__setitem__(0, 300), 0), OverflowError,
                         OverflowError, [44]),
    },
    "What CuPy 13 lacks": {
        "mT": Case(lambda xp: xp.ones((1, 2)).mT.shape, (2, 1), (2, 1), AttributeError),
        "isdtype": Case(lambda xp: xp.isdtype(xp.ones(1).dtype, "real floating"), True, True, AttributeError),
        "copy": Case(lambda xp: xp.asarray([1.0], copy=True), [1.0], [1.0], TypeError),
        "matmul": Case(writes_to_out, True, True, False),
    },
    "`sign`": {
        "NaN": Case(lambda xp: xp.sign(xp.asarray([np.nan])), [np.nan], [np.nan], [0.0]),
        "complex": Case(lambda xp: xp.sign(xp.asarray([2j])), [1j], [1j], [1 + 0j]),
    },
    "Complex to real": {"astype": Case(lambda xp: xp.asarray([1 + 1j]).astype("float64"), np.exceptions.ComplexWarning,
                                       np.exceptions.ComplexWarning, AttributeError)},
    "Arguments": {
        "mode": Case(lambda xp: xp.take(xp.asarray([1, 2]), xp.asarray([1]), mode="clip"), [2], TypeError),
        "where": Case(lambda xp: xp.sum(xp.ones(2), where=xp.asarray([True, False])), 1.0, TypeError),
        "initial": Case(lambda xp: xp.max(xp.zeros(0), initial=1.0), 1.0, TypeError),
        "casting": Case(lambda xp: xp.ones(1).astype("int64", casting="unsafe"), [1], TypeError),
    },
    "Order in memory": {
        "result": Case(lambda xp: (xp.zeros((3, 4)).T + 1.0).strides, (8, 32), (24, 8)),
        "copy.deepcopy": Case(lambda xp: copy.deepcopy(xp.zeros((3, 4)).T).strides, (8, 32), (24, 8)),
    },
    "`device=` of `array_api_compat`": {},
    "Copies on another GPU": {},
    "Order of sums": {},
}
CASES = {f"{row}: {name}": case for row, cases in ROWS.items() for name, case in cases.items()}


def bare(device: Device) -> Any:
    """Import the library itself, without the layer of array_api_compat."""
    return importlib.import_module("numpy" if device.name == "cpu" else "cupy")


def outcome(code: Callable[[Any], Any], xp: Any) -> Any:
    """Return what a line gives in plain values, or the class of what it raises."""
    try:
        found = code(xp)
    except Exception as error:  # of any kind: which one is what is compared
        return type(error)
    return found.tolist() if hasattr(found, "tolist") else found


def agrees(got: Any, expected: Any) -> bool:
    """Tell whether an outcome is the expected one: an exception of that class, or equal, with NaN equal to NaN."""
    if isinstance(expected, type) or (isinstance(expected, tuple) and isinstance(expected[0], type)):
        return isinstance(got, type) and issubclass(got, expected)
    return repr(got) == repr(expected)


@pytest.mark.backends("numpy", "cupy")
@pytest.mark.parametrize("name", CASES)
def test_each_library_does_what_the_table_says(device: Device, name: str) -> None:
    case, xp = CASES[name], bare(device)
    expected = case.numpy
    if xp.__name__ == "cupy":
        expected = case.cupy13 if case.cupy13 is not ... and int(xp.__version__.partition(".")[0]) < 14 else case.cupy
    assert agrees(found := outcome(case.code, xp), expected), f"{name}: got {found!r}, expected {expected!r}"


def test_outcomes_are_told_apart() -> None:
    assert agrees(outcome(lambda _: 1 / 0, np), ZeroDivisionError)
    assert agrees(outcome(lambda _: 1 / 0, np), (KeyError, ArithmeticError))
    assert not agrees(outcome(lambda _: 1 / 0, np), ValueError)
    assert not agrees(outcome(lambda _: 1, np), ValueError)
    assert agrees(outcome(lambda _: np.asarray([np.nan]), np), [np.nan])
    assert not agrees(outcome(lambda _: np.asarray([0.0]), np), [np.nan])
    assert not agrees(outcome(lambda _: np.asarray([1.0]), np), [1])
    assert not agrees(ValueError, [1.0])


def test_the_table_has_the_rows_that_are_tested() -> None:
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    assert [row[0] for row in cells] == list(ROWS)
    assert {len(row) for row in cells} == {4}
    assert all(all(row) for row in cells)


@pytest.mark.backends("numpy", "cupy")
@pytest.mark.parametrize("make", ["empty", "zeros", "ones", "full", "eye"])
def test_array_api_compat_ignores_device_on_cupy(device: Device, make: str) -> None:
    xp, arguments = device.xp, {"full": ((2,), 1.0), "eye": (2,)}.get(make, ((2,),))
    if device.name == "cpu":
        with pytest.raises(ValueError, match="no such device"):
            getattr(xp, make)(*arguments, device="no such device")
    else:
        assert getattr(xp, make)(*arguments, device="no such device").device == device.native


@pytest.mark.backends("cupy")
def test_copies_and_pickles_go_to_the_current_gpu(device: Device) -> None:
    cupy = bare(device)
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU: CPUCUDA_DEVICES=2 has two emulated ones")
    with cupy.cuda.Device(1):
        x = cupy.asarray([1.0, 2.0])
    found = {"copy": x.copy(), "copy.copy": copy.copy(x), "pickle": pickle.loads(pickle.dumps(x)),  # noqa: S301
             "deepcopy": copy.deepcopy(x), "full_like": device.xp.full_like(x, 1.0, device=x.device)}
    assert {name: a.device.id for name, a in found.items()} == {
        "copy": 0, "copy.copy": 0, "pickle": 0, "deepcopy": 1, "full_like": 0}


@pytest.mark.backends("numpy", "cupy")
@pytest.mark.parametrize("n", [7, 1000, 100_000])
def test_sums_agree_up_to_rounding(device: Device, n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).astype("float32")
    exact = float(values.astype("float64").sum())
    bound = np.finfo("float32").eps * np.log2(n) * float(np.abs(values).sum())
    assert abs(float(to_numpy(bare(device).sum(device.asarray(values)))) - exact) <= bound
