"""Random calls of the public API end in numbers that are right, or in an error of the package; and faults are found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import command_calls
import numpy as np
import pytest
from answers import FoundError, Refused, answer, confirm
from fuzz_calls import KINDS, Calls, run

import xpnet
from xpnet.datasets import admission
from xpnet.nn.formats import convert


def test_calls_are_confirmed_or_refused(tmp_path: Path) -> None:
    counts, failures = run(range(180), tmp_path)
    assert not failures
    for kind in KINDS:
        assert counts[f"{kind}: confirmed"] > 5
        assert counts[f"{kind}: refused"] > 2


def test_a_wrong_gradient_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = xpnet.Tanh.forward

    def wrong(self: Any, x: Any, *arrays: Any, **options: Any) -> Any:
        y, _, statistics = forward(self, x, *arrays, **options)
        return y, lambda dy: (dy * (1.0 - y), ()), statistics

    monkeypatch.setattr(xpnet.Tanh, "forward", wrong)
    assert run(range(400), tmp_path, most=1)[1]


def test_what_is_admitted_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_check_library", lambda x, what: None)
    assert run(range(400), tmp_path, most=1)[1]


def test_foreign_errors_and_warnings_are_found() -> None:
    with pytest.raises(FoundError, match="foreign error"):
        answer(lambda: np.zeros(3) @ np.zeros(4))
    with pytest.raises(FoundError, match="foreign warning: divide by zero"):
        answer(lambda: np.ones(1) / np.zeros(1))
    with pytest.raises(Refused, match="expected an optimizer"):
        answer(lambda: xpnet.Trainer(xpnet.mlp(2, [], 2), optimizer=3))  # type: ignore[arg-type]
    assert answer(lambda: 3) == 3


def test_what_has_to_be_refused_is_missed(tmp_path: Path) -> None:
    calls = Calls(0, tmp_path)
    with pytest.raises(FoundError, match="accepted although bad: nan"):
        calls.expect("nan", lambda: 1)
    assert calls.expect("maybe", lambda: 1) == 1


def test_wrong_numbers_are_seen() -> None:
    confirm([1.0], [1.0 + 1e-9], 1e-8, "close")
    for got, words in (([1.1], "off by"), ([np.nan], "not finite"), ([1.0, 1.0], "shape")):
        with pytest.raises(FoundError, match=words):
            confirm(got, [1.0], 1e-8, "number")


def test_a_wrong_conversion_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "hosted", lambda network: [
        (layer, [np.asarray(network.arrays[name]) for name in names]) for layer, names in zip(
            network.architecture.layers, network.architecture._names, strict=True)])
    calls = [Calls(seed, tmp_path) for seed in range(40)]
    found = [str(error) for error in map(failure, calls, ["convert"] * 40) if error]
    assert any("a conversion changed" in text for text in found)


@pytest.mark.parametrize(("ending", "words"), [
    (lambda *_: 3, "exit status 3"), (lambda *_: print("oh", file=sys.stderr), "other lines"),
    (lambda *_: 1 // 0, "ZeroDivisionError from")], ids=["status", "lines", "exception"])
def test_a_command_that_ends_otherwise_is_found(
    ending: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_calls, "main", ending)
    with pytest.raises(FoundError, match=words):
        command_calls.command("train")


def failure(calls: Calls, kind: str) -> FoundError | None:
    """Return what a call found, if it did."""
    try:
        getattr(calls, kind)()
    except FoundError as error:
        return error
    except Refused:
        pass
    return None
