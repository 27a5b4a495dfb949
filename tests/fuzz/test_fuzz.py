"""Every reader of files refuses what it cannot use with the error that it promises, whatever the bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fuzz_readers
import hypothesis.strategies as st
import pytest
from fuzz_readers import CORPUS, NUMBERS, READERS, WORDS, changed, corpus, read
from hypothesis import given, settings

EDITS = st.lists(st.tuples(
    st.integers(0, 5), st.one_of(st.integers(0, 64), st.integers(0, 2000), st.integers(0, 2**16)),
    st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=8),
              st.sampled_from([n.to_bytes(8, "little") for n in NUMBERS])),
), min_size=1, max_size=6)


@pytest.mark.parametrize("name", READERS)
def test_the_committed_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    inputs = corpus(name)
    assert inputs
    assert any([read(name, data, tmp_path) for data in inputs])
    assert [path.name for path in CORPUS.iterdir() if path.name not in READERS] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_changed_inputs_are_read_or_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, inputs = tmp_path_factory.mktemp(name) / "here", corpus(name)
    folder.mkdir()

    @settings(max_examples=60)
    @given(data=st.sampled_from(inputs), edits=EDITS)
    def check(data: bytes, edits: list[Any]) -> None:
        read(name, changed(data, edits), folder)

    check()
    assert [path.name for path in folder.parent.iterdir()] == ["here"]


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp(name)

    @settings(max_examples=40)
    @given(data=st.binary(max_size=300))
    def check(data: bytes) -> None:
        read(name, data, folder)

    check()


def test_a_reader_that_fails_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(data: bytes, folder: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(READERS, "lock", READERS["lock"]._replace(read=broken))
    with pytest.raises(ZeroDivisionError):
        read("lock", b"", tmp_path)
    monkeypatch.setitem(READERS, "lock", READERS["lock"]._replace(refusals=(ZeroDivisionError,)))
    assert read("lock", b"", tmp_path) is False


def test_edits_change_what_they_say() -> None:
    data = bytes(range(100))
    assert changed(data, [(0, 3, b"a")]) == data[:3] + b"\1" + data[4:]
    assert changed(data, [(1, 3, b"xy")]) == data[:3] + b"xy" + data[5:]
    assert changed(data, [(2, 3, b"xy")]) == data[:3] + b"xy" + data[3:]
    assert changed(data, [(3, 3, b"x")]) == data[:3] + data[5:]
    assert changed(data, [(4, 3, b"x")]) == data[:11] + data[3:]
    assert changed(data, [(5, 3, b"x"), (2, 7, b"!")]) == b"\0\1\2!"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limits of memory and time are Linux's")
@pytest.mark.parametrize("name", READERS)
def test_many_inputs_under_limits_of_memory_and_time(name: str) -> None:
    found = subprocess.run([sys.executable, fuzz_readers.__file__, name, "500", "7"], capture_output=True, text=True,
                           check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    told = json.loads(found.stdout)
    assert told["failures"] == []
    assert told["inputs"] == 500 == told["read"] + told["refused"]
    assert told["refused"] > 5
