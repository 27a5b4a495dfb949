"""Admission of arrays: each kind with more to it than its values is refused, by every entrance alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from entrances import ARRAYS, FEATURES, LABELS, SMALL, TABLES, TARGETS, WIDTH, N, X, Y, fitted, trainer

import xpnet
from xpnet.backend import Device, to_numpy
from xpnet.cli import main
from xpnet.datasets.admission import ArrayError, NotFiniteError, admit, check_finite, feature_names
from xpnet.estimators import MLPClassifier


class Foreign:
    """An array of some other library, with the attributes that are given."""

    def __init__(self, x: Any, **attributes: Any) -> None:
        self.x, self.shape, self.ndim, self.dtype = x, x.shape, x.ndim, x.dtype
        vars(self).update(attributes)

    def __getitem__(self, key: Any) -> Any:
        return self.x[key]

    def __len__(self) -> int:
        return len(self.x)


class Namespaced(Foreign):
    """An array whose library calls itself one of the array API."""

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return SimpleNamespace(__name__="other")

    device = "other"


class OnMetal(Foreign):
    """An array that DLPack says is on a device that NumPy and CuPy do not read."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 8, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("not on this device")


class Subclass(np.ndarray):
    """A subclass of which nothing is known."""


def structured(x: Any) -> Any:
    return np.zeros(len(x), dtype=[("a", "f4"), ("b", "i4")])


def masked(x: Any) -> Any:
    return np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 7 == 0)


def dates(x: Any) -> Any:
    found = np.zeros(x.shape, "M8[D]")
    found.flat[3] = np.datetime64("NaT", "s")
    return found


def in_days(x: Any) -> Any:
    return (x - x.min()) / np.timedelta64(1, "D")


#: What makes an array that no entrance takes, for features, labels and targets alike.
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "masked": (masked, r"an array without a mask; use x.filled"),
    "a mask that hides nothing": (np.ma.masked_array, r"an array without a mask"),
    "subclass": (lambda x: x.view(Subclass), r"plain array, got test_admission.Subclass.*numpy.asarray\(x\)"),
    "NaT": (dates, r"got dtype datetime64\[D\]; use a duration as a number"),
    "durations": (lambda x: np.zeros(x.shape, "m8[s]"), r"got dtype timedelta64\[s\]"),
    "structured": (structured, r"got dtype \[.*structured_to_unstructured"),
    "bfloat16": (lambda x: x.astype("f4").view("V2")[..., : x.shape[-1]] if x.ndim > 1 else np.zeros(N, "V2"),
                 r"got dtype .*V2.*; use x.astype\('float32'\)"),
    "sparse": (lambda x: Foreign(x, toarray=lambda: x), r"Sparse data .* dense data is needed: use .*toarray\(\)"),
    "sparse by layout": (lambda x: Foreign(x, layout="lib.sparse_coo", to_dense=lambda: x),
                         r"Sparse data .* use x.to_dense\(\)"),
    "requires grad": (lambda x: Foreign(x, requires_grad=True), r"requires_grad=True; use x.detach\(\)"),
    "dask": (lambda x: Foreign(x, __dask_graph__=dict), r"got a lazy one of dask; use x.compute\(\)"),
    "lazy table": (lambda x: Foreign(x, collect=lambda: x), r"lazy Foreign; use x.collect\(\)"),
    "a library without the standard": (Namespaced, r"got test_admission's Namespaced, which cannot be read"),
    "on another device": (OnMetal, r"got test_admission's OnMetal, which cannot be read .*use numpy.asarray\(x\)"),
}
#: Those that are for features only: labels and targets have shapes or kinds of their own.
FEATURES_REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "matrix": (lambda x: x.view(np.matrix), r"expected a plain array, got numpy.*matrix.*use numpy.asarray\(x\)"),
    "complex": (lambda x: x + 0j, r"expected real numbers, got dtype complex64; Complex data not supported"),
    "text": (lambda x: x.astype(str), r"expected real numbers, got dtype <U"),
    "bytes": (lambda x: x.astype("S"), r"expected real numbers, got dtype \|S"),
    "StringDType": (lambda x: x.astype(np.dtypes.StringDType()), r"expected real numbers, got dtype StringDType"),
    "void": (lambda x: np.zeros(x.shape, "V4"), r"got dtype .*V4"),
    "NaN": (lambda x: np.where(x == x[5, 2], np.nan, x), r"finite numbers, got nan in example 5, feature 2"),
    "infinite": (lambda x: np.where(x == x[5, 2], -np.inf, x), r"finite numbers, got -inf in example 5, feature 2"),
}


@pytest.mark.parametrize("kind", [*REFUSED, *FEATURES_REFUSED])
@pytest.mark.parametrize("entrance", FEATURES)
def test_features_of_another_kind_are_refused_everywhere(entrance: str, kind: str) -> None:
    change, words = (REFUSED | FEATURES_REFUSED)[kind]
    with pytest.raises(ValueError, match=words) as caught:
        FEATURES[entrance](change(X))
    assert isinstance(caught.value, ArrayError | NotFiniteError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [*REFUSED])
@pytest.mark.parametrize("entrance", LABELS)
def test_labels_of_another_kind_are_refused_everywhere(entrance: str, kind: str) -> None:
    change, words = REFUSED[kind]
    with pytest.raises(ArrayError, match=words):
        LABELS[entrance](change(Y))


@pytest.mark.parametrize("kind", [*REFUSED])
@pytest.mark.parametrize("entrance", TARGETS)
def test_targets_of_another_kind_are_refused_everywhere(entrance: str, kind: str) -> None:
    change, words = REFUSED[kind]
    with pytest.raises(ArrayError, match=words):
        TARGETS[entrance](change(X[:, 0]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("entrance", TARGETS)
def test_targets_that_are_not_finite_are_refused_everywhere(entrance: str, value: float) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        TARGETS[entrance](np.where(np.arange(N) == 4, value, X[:, 0]))


@pytest.mark.parametrize("entrance", FEATURES)
def test_what_is_plain_is_taken_everywhere(entrance: str, tmp_path: Any) -> None:
    FEATURES[entrance](X)
    np.save(tmp_path / "x.npy", X)
    FEATURES[entrance](np.load(tmp_path / "x.npy", mmap_mode="r"))


# What the remedies give -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", [
    lambda x: masked(x).filled(0.0), lambda x: np.asarray(x.view(np.matrix)), lambda x: np.asarray(x.view(Subclass)),
    lambda x: (x + 0j).real, lambda x: np.abs(x + 0j), lambda x: x.astype(str).astype("float64"),
    lambda x: in_days((x * 100).astype("M8[D]")),
    lambda x: np.lib.recfunctions.structured_to_unstructured(
        np.asarray(np.rec.fromarrays(list(x.T), names=list("abcdef")))),
], ids=["filled", "of a matrix", "of a subclass", "real part", "modulus", "text", "durations", "structured"])
def test_remedies_are_taken(remedy: Callable[[Any], Any]) -> None:
    import numpy.lib.recfunctions  # noqa: F401

    for call in FEATURES.values():
        call(remedy(X))


# Lists, tables and objects --------------------------------------------------------------------------------------


@pytest.mark.parametrize("entrance", ARRAYS)
def test_arrays_are_asked_for_where_lists_are_not_converted(entrance: str) -> None:
    with pytest.raises(TypeError, match=r"expected an array, got list; wrap it in numpy.asarray"):
        ARRAYS[entrance](X.tolist())
    with pytest.raises(TypeError, match="expected real numbers, got dtype object"):
        ARRAYS[entrance](X.astype(object))


def with_object(value: Any) -> Any:
    found = X.astype(object)
    found[5, 2] = value
    return found


class Missing:
    """What pandas writes for a missing value, as far as one looks at it."""

    def __float__(self) -> float:
        raise TypeError("float() argument must be a string or a real number, not 'Missing'")


@pytest.mark.parametrize(("value", "words"), [
    (None, "got 'None' of type NoneType"), (Missing(), "of type Missing"), ("1.5", "got '1.5' of type str"),
    (1j, "got '1j' of type complex .*Complex data not supported|1j"), ({}, "argument must be .* string.* number"),
    (np.datetime64("NaT", "s"), "got 'NaT' of type datetime64"), (b"1", "of type bytes"), ([1.0], "of type list"),
    (10**400, "expected numbers that float64 holds"), (float("nan"), "expected finite numbers, got nan in example 5"),
], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("entrance", TABLES)
def test_each_object_is_looked_at(entrance: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        TABLES[entrance](with_object(value))
    assert value == 10**400 or "row 5, column 2" in str(caught.value) or "example 5, feature 2" in str(caught.value)


@pytest.mark.parametrize("value", [1, True, 0.5, Fraction(1, 2), Decimal("0.5"), np.float32(2), np.bool_(True)])
def test_objects_that_are_numbers_are_numbers(value: Any) -> None:
    found = admit(with_object(value), "X", convert=True)
    assert found.dtype == np.float64
    assert found[5, 2] == float(value)


@pytest.mark.parametrize("value", [None, float("nan"), type("NAType", (), {})(), np.datetime64("NaT", "s")])
@pytest.mark.parametrize("entrance", [name for name in LABELS if "MLP" in name or "Grid" in name])
def test_labels_that_are_missing_are_refused(entrance: str, value: Any) -> None:
    y = np.asarray(["a", "b", "c"], dtype=object)[Y]
    y[4] = value
    with pytest.raises(ValueError, match=r"NaN|expected numbers, like the classes|order|not among the classes"):
        LABELS[entrance](y)
    if not isinstance(value, np.datetime64):
        with pytest.raises(ArrayError, match=r"Input y contains NaN: .* in row 4"):
            LABELS[entrance](y)


def test_labels_of_variable_width_text_are_text() -> None:
    names = np.asarray(["one", "two", "three"])[Y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier(**SMALL).fit(X, names.astype(np.dtypes.StringDType()))
        same = MLPClassifier(**SMALL).fit(X, names)
    assert model.classes_.tolist() == same.classes_.tolist() == ["one", "three", "two"]
    assert model.predict(X).tolist() == same.predict(X).tolist()
    assert model.score(X, names) == same.score(X, names)


@pytest.mark.parametrize("attribute", ["columns", "column_names"])
def test_names_of_tables(attribute: str) -> None:
    # Arrow's ``columns`` are arrays, and its names are ``column_names``.
    table = SimpleNamespace(columns=[np.zeros(3)]) if attribute == "column_names" else SimpleNamespace()
    setattr(table, attribute, ["a", "b"])
    assert feature_names(table) == ["a", "b"]
    setattr(table, attribute, ["a", 1])
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        feature_names(table)
    assert feature_names(X) is None


def test_columns_of_a_frame_are_named_in_errors() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    cases = {
        "row 1, column n": frame.assign(n=pandas.array([1, None] * (N // 2), dtype="Int64")),
        "row 0, column t": frame.assign(t=pandas.date_range("2024", periods=N)),
        "row 0, column d": frame.assign(d=pandas.to_timedelta(range(N), unit="s")),
        "row 0, column s": frame.assign(s=["1.5"] * N),
        "row 0, column c": frame.assign(c=pandas.Categorical(["u"] * N)),
    }
    for words, table in cases.items():
        with pytest.raises(ArrayError, match=f"X: expected real numbers, got .* in {words}"):
            MLPClassifier(**SMALL).fit(table, Y)
    for whole in (frame.assign(n=pandas.array([1, 2] * (N // 2), dtype="Int64")), frame.assign(b=[True, False] * 30)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MLPClassifier(**SMALL).fit(whole, pandas.Series(Y, dtype="Int64"))
        assert model.feature_names_in_.tolist() == whole.columns.tolist()
        assert model.predict(whole).dtype == np.int64


# Finite, also in the network's dtype ----------------------------------------------------------------------------


@pytest.mark.parametrize("entrance", [name for name in FEATURES if "fit" not in name or "Trainer" in name])
def test_features_that_float32_does_not_hold_are_refused(entrance: str) -> None:
    x = X.astype("float64")
    x[5, 2] = 1e39
    with pytest.raises(NotFiniteError, match=r"at most 3.4e\+38.* got 1e\+39 in example 5, feature 2; rescale"):
        FEATURES[entrance](x)


@pytest.mark.parametrize("entrance", [name for name in TARGETS if "Trainer" in name or name == "sweep"])
def test_targets_that_float32_does_not_hold_are_refused(entrance: str) -> None:
    y = X[:, 0].astype("float64")
    y[5] = -1e39
    with pytest.raises(NotFiniteError, match=r"targets: expected at most 3.4e\+38.* got -1e\+39 in example 5"):
        TARGETS[entrance](y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_that_overflow_when_standardised_are_refused(device: Device, dtype: str) -> None:
    small = to_numpy(device.asarray(X)) * np.asarray(1e-30 if dtype == "float32" else 1e-200, dtype)
    made = xpnet.Trainer(xpnet.mlp(WIDTH, [4], 3, standardize=True), batch_size=20, dtype=dtype)
    made.fit(device.asarray(small), device.asarray(Y), steps=2)
    network = made.network
    far = small.copy()
    far[7, 1] = 1e30 if dtype == "float32" else 1e200
    far = device.asarray(far)
    for call in (lambda: network(far), lambda: network.predict(far), lambda: network.predict_proba(far),
                 lambda: made.evaluate(far, device.asarray(Y)),
                 lambda: made.fit(device.asarray(small), device.asarray(Y), steps=4,
                                  validation=(far, device.asarray(Y)))):
        with pytest.raises(NotFiniteError, match=r"after standardisation.* in example 7, feature 1"):
            call()
    assert np.isfinite(to_numpy(network.predict_proba(device.asarray(small)))).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "bool", "float16", "float64"])
def test_what_is_in_range_passes(device: Device, dtype: str) -> None:
    if not hasattr(device.xp, dtype):
        pytest.skip(f"the library has no {dtype}")
    x = device.asarray(np.asarray([[0, 1], [1, 1]]), dtype)
    check_finite(x, "features", dtype=device.xp.float32)
    scaling = device.asarray([0.0, 0.5], "float32"), device.asarray([1e38, 1.0], "float32")
    check_finite(x, "features", dtype=device.xp.float32, scaling=scaling)


def wide_open(device: Device) -> Any:
    """Return a network whose outputs are some thousand times its inputs."""
    made = trainer()
    made.fit(device.asarray(X), device.asarray(Y), steps=2)
    return xpnet.Network(made.architecture, {**made.arrays, "W2": made.arrays["W2"] * 1e4})


def test_outputs_that_overflow_name_their_rows(device: Device) -> None:
    network, raw = wide_open(device), X.copy()
    raw[[3, 9]] = 3e38
    far, ensemble = device.asarray(raw), xpnet.Ensemble([network])
    for call in (network, network.predict, network.predict_proba, ensemble.predict, ensemble.predict_proba):
        with pytest.raises(NotFiniteError, match=r"are not finite for row\(s\) 3, 9: the features there are too large"):
            call(far)
    assert np.isfinite(to_numpy(network(device.asarray(X)))).all()


def test_a_network_that_diverged_predicts_nothing() -> None:
    network = fitted("trainer").network
    broken = xpnet.Network(network.architecture, {**network.arrays, "W1": network.arrays["W1"] * np.nan})
    with pytest.raises(NotFiniteError, match=r"row\(s\) 0, 1, 2, 3, 4, ... \(60 of 60\): its arrays W1 are not, since"):
        broken.predict(X)


# The command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "words"), [
    (X.astype("float64") * 1e39, "expected at most 3.4e"), (np.where(X == X[5, 2], np.nan, X), "row 5, column 2"),
    (X.astype("M8[s]"), "got dtype datetime64"), (X + 0j, "got dtype complex64"), (X.astype(str), "got dtype <U"),
    (structured(X), "got dtype"), (X.astype(object), "nothing is unpickled"),
    (np.sign(X) * np.float32(3e38), "not finite for row"),
], ids=["1e39", "NaN", "dates", "complex", "text", "structured", "objects", "overflow"])
def test_the_command_line_refuses_them_too(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], x: Any, words: str
) -> None:
    wide_open(Device()).save(tmp_path / "network.safetensors")
    np.save(tmp_path / "x.npy", x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["predict", str(tmp_path / "network.safetensors"), str(tmp_path / "x.npy")]) != 0
    shown = capsys.readouterr()
    assert words in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert not shown.out
