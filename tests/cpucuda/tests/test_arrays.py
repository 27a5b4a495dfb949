"""CuPy's element-wise functions, reductions, casts, scans and sorts against NumPy's, on random arrays."""

from __future__ import annotations

import warnings
from typing import Any

import cupy
import numpy as np
import pytest

from .support import COMPLEX, DTYPES, FLOATS, INTEGERS, TRIED, assert_same, both, draw, generator

EVERY = "equal not_equal maximum minimum add multiply"
BINARY = {
    **dict.fromkeys(FLOATS, f"{EVERY} subtract divide less less_equal power floor_divide remainder fmod arctan2 hypot "
                            "copysign logical_and"),
    **dict.fromkeys(COMPLEX, f"{EVERY} subtract divide power"),
    **dict.fromkeys(INTEGERS, f"{EVERY} subtract divide greater greater_equal floor_divide "
                              "remainder bitwise_and bitwise_or bitwise_xor left_shift right_shift"),
    "?": f"{EVERY} less logical_and logical_xor bitwise_and bitwise_or bitwise_xor",
}
UNARY = {
    **dict.fromkeys(FLOATS, "negative absolute square sign reciprocal exp expm1 log1p log sqrt cbrt sin cos tan tanh "
                            "arctan sinh floor ceil rint trunc isnan isinf isfinite signbit logical_not exp2 log2"),
    **dict.fromkeys(COMPLEX, "negative absolute square reciprocal exp log sqrt sin cos tanh conj real imag angle"),
    **dict.fromkeys(INTEGERS, "negative absolute square sign invert logical_not isfinite"),
    "?": "invert logical_not absolute",
}


@pytest.mark.parametrize("dtype", TRIED)
def test_binary_functions_that_broadcast(dtype: str) -> None:
    random = generator("binary", dtype)
    for name in BINARY[dtype].split():
        positive = name in ("power", "floor_divide", "remainder", "fmod", "divide", "left_shift", "right_shift")
        x, y = (draw(random, dtype, shape, 1 if positive else -9) for shape in ((3, 1, 4), (5, 1)))
        if dtype in FLOATS and name in ("maximum", "minimum", "equal", "less"):
            x[0, 0, :3], y[0] = (np.nan, np.inf, -np.inf), np.inf
        if name == "power":
            x, y = x / x.dtype.type(4), y / y.dtype.type(4)
        (a, x), (b, y) = both(x), both(y)
        assert_same(getattr(cupy, name)(a, b), getattr(np, name)(x, y), (name, dtype), 4)


@pytest.mark.parametrize("dtype", TRIED)
def test_unary_functions(dtype: str) -> None:
    random = generator("unary", dtype)
    for index, name in enumerate(UNARY[dtype].split()):
        x = draw(random, dtype, (3, 8), 1 if name.startswith(("log", "sqrt")) and name != "logical_not" else -9)
        if dtype in FLOATS and name.startswith("is"):
            x[0, :3] = np.nan, np.inf, -np.inf
        a, x = both(x)
        assert_same(getattr(cupy, name)(a), getattr(np, name)(x), (name, dtype), 4)
        if index % 6 == 0:  # another kernel, which is to be compiled too
            assert_same(getattr(cupy, name)(a.T[1::2]), getattr(np, name)(x.T[1::2]), (name, dtype, "strided"), 4)


@pytest.mark.parametrize("dtype", TRIED)
def test_reductions_over_every_axis(dtype: str) -> None:
    a, x = both(draw(generator("reductions", dtype), dtype, (3, 4, 5)))
    for axis in (None, 0, 1, 2, (0, 2), (0, 1, 2)):
        for name in ("sum", "max") if dtype in ("f4", "f8", "i8") or axis == 1 else ("sum",):
            for keepdims in (False, True):
                actual = getattr(cupy, name)(a, axis=axis, keepdims=keepdims)
                assert_same(actual, getattr(np, name)(x, axis=axis, keepdims=keepdims), (name, axis, keepdims), 10)
    for name in ("prod", "min", "any", "all", "mean", *(("var", "std") if dtype in FLOATS else ())):
        for keepdims in (False, True):
            actual = getattr(cupy, name)(a, axis=1, keepdims=keepdims)
            assert_same(actual, getattr(np, name)(x, axis=1, keepdims=keepdims), (name, keepdims), 100)
    for name in ("sum", "mean"):
        if dtype in (*FLOATS, *COMPLEX):
            assert_same(getattr(cupy, name)(a.T, axis=1), getattr(np, name)(x.T, axis=1), (name, "transposed"), 10)


@pytest.mark.parametrize("dtype", TRIED)
def test_positions_of_extremes(dtype: str) -> None:
    a, x = both(draw(generator("extremes", dtype), dtype, (7, 6)))
    for name in ("argmax", "argmin"):
        for axis in (None, 0, 1):
            assert_same(getattr(cupy, name)(a, axis=axis), getattr(np, name)(x, axis=axis), (name, axis))


def test_long_sums_and_sums_of_nothing() -> None:
    random = generator("long")
    for shape, axis in [((3, 5000), 1), ((5000, 3), 0), ((20000,), None), ((0, 4), 0), ((2, 3, 700), (0, 2))]:
        a, x = both(draw(random, "f8", shape))
        assert_same(a.sum(axis=axis), x.sum(axis=axis), (shape, axis), 1000)
    with pytest.raises(ValueError, match="zero-size"):
        cupy.zeros((0, 3)).max(axis=0)
    x = draw(random, "f4", (4, 6))
    x[1, 2:4] = np.nan
    for name in ("nansum", "nanmax", "nanmean"):
        assert_same(getattr(cupy, name)(cupy.asarray(x), axis=1), getattr(np, name)(x, axis=1), name)


@pytest.mark.parametrize("source", TRIED)
def test_casts(source: str) -> None:
    a, x = both(draw(generator("casts", source), source, (40,), 0))
    for target in DTYPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
            assert_same(a.astype(target), x.astype(target), (source, target))


@pytest.mark.parametrize("dtype", [name for name in TRIED if name != "?"])
def test_scans(dtype: str) -> None:
    a, x = both(draw(generator("scans", dtype), dtype, (4, 600), 1))
    assert_same(cupy.cumsum(a, axis=1), np.cumsum(x, axis=1, dtype=None if dtype != "f2" else "f4").astype(
        np.cumsum(x[:1, :1]).dtype), "cumsum", 50)
    assert_same(cupy.cumsum(a[:, :9], axis=0), np.cumsum(x[:, :9], axis=0), "cumsum of columns", 4)
    assert_same(cupy.cumprod(a[0, :4]), np.cumprod(x[0, :4]), "cumprod", 4)


@pytest.mark.parametrize("dtype", TRIED)
def test_sorts(dtype: str) -> None:
    a, x = both(draw(generator("sorts", dtype), dtype, (4, 30)))
    for axis in (0, 1):
        assert_same(cupy.sort(a, axis=axis), np.sort(x, axis=axis), axis)
        assert_same(cupy.argsort(a, axis=axis), np.argsort(x, axis=axis, kind="stable"), axis)
    assert_same(cupy.lexsort(a), np.lexsort(x), "lexsort")
    assert_same(cupy.unique(a), np.unique(x), "unique")


@pytest.mark.parametrize("dtype", TRIED)
def test_parts_put_together(dtype: str) -> None:
    random = generator("parts", dtype)
    (a, x), (b, y) = (both(draw(random, dtype, shape)) for shape in ((3, 4), (2, 4)))
    assert_same(cupy.concatenate([a, b, a[::-1]]), np.concatenate([x, y, x[::-1]]), "concatenate")
    assert_same(cupy.stack([a, a.T.reshape(3, 4)], axis=2), np.stack([x, x.T.reshape(3, 4)], axis=2), "stack")
    assert_same(cupy.where(b[:1] == b, b, a[:1]), np.where(y[:1] == y, y, x[:1]), "where")
    assert_same(cupy.roll(cupy.tile(a, (2, 1)), 3, axis=1), np.roll(np.tile(x, (2, 1)), 3, axis=1), "tile")
    assert_same(cupy.repeat(b, 3, axis=0), np.repeat(y, 3, axis=0), "repeat")
    assert_same(cupy.pad(a, 1), np.pad(x, 1), "pad")
    assert_same(cupy.tril(a), np.tril(x), "tril")
    copied = cupy.ascontiguousarray(cupy.broadcast_to(a[:, None], (3, 2, 4)))
    assert_same(copied, np.broadcast_to(x[:, None], (3, 2, 4)), "broadcast_to")


def test_arrays_from_nothing() -> None:
    cases: list[tuple[str, Any]] = [
        ("arange", (3, 40, 7)), ("linspace", (0.5, 2, 9)), ("eye", (4, 5, 1)), ("zeros", ((2, 3),)), ("ones", (4,)),
        ("full", ((2, 2), 1.5)), ("tri", (3, 4)), ("diag", ([1.0, 2.0],)),
    ]
    for name, arguments in cases:
        assert_same(getattr(cupy, name)(*arguments), getattr(np, name)(*arguments), name)
    grids = cupy.meshgrid(cupy.arange(3), cupy.arange(2.0)), np.meshgrid(np.arange(3), np.arange(2.0))
    for actual, expected in zip(*grids, strict=True):
        assert_same(actual, expected, "meshgrid")


def test_subnormal_floats_are_flushed_without_doubles_only() -> None:
    tiny = cupy.array([1e-40, 1.0], "f4")
    assert (tiny * 1).get().tolist() == [0, 1]
    assert (tiny.astype("f8") * 1).get()[0] > 0


def test_fused_and_user_defined_kernels() -> None:
    random = generator("fused")
    (a, x), (b, y) = (both(draw(random, "f4", (6, 5))) for _ in range(2))

    @cupy.fuse
    def norm_minus(a: Any, b: Any) -> Any:
        return cupy.sqrt(a * a + b) - a

    assert_same(norm_minus(a, abs(b)), np.sqrt(x * x + abs(y)) - x, "fuse", 10)
    square = cupy.ElementwiseKernel("T x, T y", "T z", "z = x * x - y", "cpucuda_test_square")
    assert_same(square(a, b[:1]), x * x - y[:1], "ElementwiseKernel", 10)
    norm = cupy.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "cpucuda_test_norm")
    assert_same(norm(a, axis=1), np.linalg.norm(x, axis=1), "ReductionKernel", 10)
