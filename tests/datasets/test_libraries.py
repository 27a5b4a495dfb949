"""Arrays and tables of other libraries: what each gives, and what is refused; real ones where they are installed."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from entrances import FEATURES, LABELS, SMALL, TABLES, N, X, Y

from xpnet.datasets.admission import ArrayError, admit
from xpnet.estimators import MLPClassifier

COLUMNS = {name: X[:, i] for i, name in enumerate("abcdef")}
TEXT = [f"c{i}" for i in Y]


class Arrow:
    """A column of Arrow: its DLPack has neither text nor missing values."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __arrow_c_array__(self) -> None: ...

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("no text")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.values, dtype)


class Frame:
    """A table of Polars, which makes numbers of dates beside other numbers."""

    columns: tuple[str, ...] = ()

    def __init__(self, temporal: bool) -> None:
        self.dtypes = [SimpleNamespace(is_temporal=lambda kind=kind: kind) for kind in (False, temporal)]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(X, dtype)


class NoExport(SimpleNamespace):
    """An array of a library that has all of the standard but a way to read the values, like ndonnx."""

    shape, ndim, dtype, device = (N, 6), 2, np.dtype("float32"), "here"

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np

    def __getitem__(self, key: Any) -> Any:
        return self

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("no export")


def test_columns_are_converted_where_lists_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier(**SMALL).fit(X, Arrow(TEXT))
    assert model.classes_.tolist() == ["c0", "c1", "c2"]
    assert admit(Arrow([True, False]), "y", convert=True, real=False).tolist() == [True, False]
    with pytest.raises(ArrayError, match="contains NaN: None in row 0"):
        admit(Arrow([None, "a"]), "y", convert=True, real=False)


@pytest.mark.parametrize("entrance", TABLES)
def test_dates_in_a_table_are_refused(entrance: str) -> None:
    with pytest.raises(ArrayError, match=r"expected real numbers, got a column of .*use a duration as a number"):
        TABLES[entrance](Frame(temporal=True))
    TABLES[entrance](Frame(temporal=False))


@pytest.mark.parametrize("given", [
    [np.ma.masked_array(row, row > 1) for row in X], tuple(np.ma.masked_array(row, row > 1) for row in X),
    [row.view(np.matrix) for row in X], [SimpleNamespace(requires_grad=True) for _ in X],
], ids=["masked rows", "a tuple", "matrices", "gradients"])
@pytest.mark.parametrize("entrance", TABLES)
def test_rows_in_a_list_are_looked_at(entrance: str, given: Any) -> None:
    with pytest.raises(ArrayError, match=r"mask|plain array|requires_grad"):
        TABLES[entrance](given)


@pytest.mark.parametrize("labels", [[1, "a"] * 30, [float("nan"), "a"] * 30, (True, "a") * 30])
@pytest.mark.parametrize("entrance", [name for name in LABELS if "MLP" in name or "Grid" in name])
def test_numbers_beside_text_do_not_become_text(entrance: str, labels: Any) -> None:
    with pytest.raises(ArrayError, match=r"expected only text or only numbers, got .* beside text"):
        LABELS[entrance](labels)


@pytest.mark.parametrize("entrance", FEATURES)
def test_values_that_cannot_be_read_are_refused(entrance: str) -> None:
    with pytest.raises(ArrayError, match=r"cannot be read .*; convert it to a NumPy array of numbers"):
        FEATURES[entrance](NoExport())


@pytest.mark.parametrize(("attributes", "words"), [
    ({"is_nested": True}, r"got a nested one; use torch.stack"), ({"is_neg": lambda: True}, r"x.resolve_neg\(\)")])
def test_views_that_are_no_arrays_are_refused(attributes: Any, words: str) -> None:
    with pytest.raises(ArrayError, match=words):
        admit(SimpleNamespace(**attributes), "X", convert=True)


def test_numbers_that_float64_does_not_hold() -> None:
    for given in (np.full((N, 6), np.longdouble("1e400")), np.full((N, 6), 10**400, object)):
        if np.isinf(np.longdouble("1e400")):
            pytest.skip("long double is float64 here")
        with pytest.raises(ValueError, match="float64"):
            MLPClassifier(**SMALL).fit(given, Y)


# Real libraries ---------------------------------------------------------------------------------------------------


def pyarrow_cases(pa: Any) -> dict[str, tuple[Any, str]]:
    date = pa.array([datetime.date(2024, 1, 1)] * N)
    return {"table": (pa.table(COLUMNS), ""), "batch": (pa.record_batch(COLUMNS), ""),
            "missing": (pa.table({**COLUMNS, "a": pa.array([None, *X[1:, 0].tolist()])}), "nan in example 0"),
            "text": (pa.table({**COLUMNS, "a": TEXT}), "got 'c.' of type str in row 0, column a"),
            "date": (pa.table({**COLUMNS, "a": date}), "cannot be read|got dtype object|of type date")}


def polars_cases(pl: Any) -> dict[str, tuple[Any, str]]:
    frame = pl.DataFrame(COLUMNS)
    dates = pl.Series([datetime.date(2024, 1, 1)] * N)
    return {"frame": (frame, ""), "lazy": (frame.lazy(), r"lazy LazyFrame; use x.collect\(\)"),
            "missing": (frame.with_columns(a=pl.Series([None, *X[1:, 0].tolist()])), "nan in example 0"),
            "date": (frame.with_columns(a=dates), "a column of Date"),
            "duration": (frame.with_columns(a=dates - dates), "a column of Duration"),
            "category": (frame.with_columns(a=pl.Series(TEXT, dtype=pl.Categorical)), "of type str in row 0, column a")}


def jax_cases(jax: Any) -> dict[str, tuple[Any, str]]:
    x = jax.numpy.asarray(X)
    return {"float32": (x, ""), "uint8": (jax.numpy.abs(x).astype("uint8"), ""),
            "bfloat16": (x.astype("bfloat16"), r"cannot be read .*numpy.asarray\(x\).astype\('float32'\)"),
            "nan": (x.at[5, 2].set(jax.numpy.nan), "got nan in example 5, feature 2")}


def torch_cases(torch: Any) -> dict[str, tuple[Any, str]]:
    x = torch.from_numpy(X.copy())
    return {"bfloat16": (x.bfloat16(), "cannot be read .* a NumPy array of numbers"),
            "float8": (x.to(torch.float8_e5m2), "cannot be read"), "meta": (x.to("meta"), "cannot be read"),
            "negated": (torch.complex(x, x).conj().imag, r"use x.resolve_neg\(\)"),
            "nested": (torch.nested.nested_tensor([x[0], x[1]]), "use torch.stack"),
            "rows": ([*x.clone().requires_grad_()], "requires_grad")}


def mlx_cases(mlx: Any) -> dict[str, tuple[Any, str]]:
    from mlx import core

    assert core.__name__.startswith(mlx.__name__)

    return {"array": (core.array(X), r"cannot be read .*use numpy.asarray\(x\)"),
            "bfloat16": (core.array(X).astype(core.bfloat16), "cannot be read .*convert it to a NumPy array")}


def ndonnx_cases(ndx: Any) -> dict[str, tuple[Any, str]]:
    return {"array": (ndx.asarray(X), "cannot be read"),
            "missing": (ndx.asarray(np.ma.masked_array(X, X > 1)), "cannot be read"),
            "lazy": (ndx.argument(shape=("N", 6), dtype=ndx.float32), "cannot be read")}


@pytest.mark.parametrize("library", [pyarrow_cases, polars_cases, jax_cases, torch_cases, mlx_cases, ndonnx_cases],
                         ids=lambda cases: cases.__name__.removesuffix("_cases"))
def test_real_libraries(library: Callable[[Any], dict[str, tuple[Any, str]]]) -> None:
    found = pytest.importorskip(library.__name__.removesuffix("_cases"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (given, words) in library(found).items():
            model = MLPClassifier(**SMALL)
            if not words:
                expected = MLPClassifier(**SMALL).fit(np.asarray(given), Y).predict(np.asarray(given))
                assert model.fit(given, Y).predict(given).tolist() == expected.tolist(), name
                continue
            with pytest.raises(ArrayError if "nan in" not in words else ValueError, match=words):
                model.fit(given, Y)
