"""Lines of names above numbers: told, clear from the whole file, or asked for; and names that are a network's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet import datasets
from xpnet.datasets import inputs, tables
from xpnet.datasets.inputs import InputError

pytestmark = pytest.mark.backends("numpy")

BODY = "-2,0.5,0\n2,0,1\n"
ROWS = [[-2.0, 0.5, 0.0], [2.0, 0.0, 1.0]]
#: First lines above BODY, and the names that they are, or None for an example, or a word of the error.
FIRST: dict[str, tuple[str, Any]] = {
    "names": ("a,b,c", list("abc")), "quoted": ('"a, 1","b","c"', ["a, 1", "b", "c"]),
    "chemistry": ("K,Na,Ca", ["K", "Na", "Ca"]), "unnamed index": (",b,c", ["", "b", "c"]),
    "numbers": ("1.5,2,3", None), "negative": ("-1,0,1", None), "equal": ("0,0,0", None), "falling": ("3,2,1", None),
    "apart": ("3,7,9", None), "exponents": ("1e0,2e0,3e0", None),
    "empty": ("-2,,0", "line 1, column 2: expected a number, got nothing"),
    "NA": ("-2,NA,0", "line 1, column 2: expected a number, got 'NA'"),
    "all missing": ("NA,NA,NA", "line 1, column 1: expected a number, got 'NA'"),
    "nan": ("-2,nan,0", "row 0, column 1"),
    "pandas": ("0,1,2", "may be the numbers of the columns or an example"),
    "from 1": ("1,2,3", "may be the numbers of the columns or an example"),
    "half": ("a,1,2", r"text \('a'\) beside numbers \('1'\), so that it may be names or a damaged example"),
    "a typo": ("-2,0.5x,0", r"text \('0.5x'\) beside numbers"),
}


@pytest.mark.parametrize("case", FIRST)
def test_the_first_line_is_names_or_an_example_or_an_error(case: str) -> None:
    first, expected = FIRST[case]
    content = f"{first}\n{BODY}".encode()
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            inputs.csv(content)
    else:
        x, names = inputs.csv(content)
        assert names == expected
        assert x[-2:].tolist() == ROWS
        assert len(x) == 2 + (expected is None)
    assert inputs.csv(content, "yes")[0].tolist() == ROWS
    assert inputs.csv(f"{BODY}".encode(), "no")[0].tolist() == ROWS


@pytest.mark.parametrize("case", ["pandas", "from 1"])
def test_the_option_in_the_error_is_the_remedy(case: str) -> None:
    content = f"{FIRST[case][0]}\n{BODY}".encode()
    with pytest.raises(InputError, match=r"--header yes or --header no \(header= in Python\) tells"):
        inputs.csv(content)
    assert [len(inputs.csv(content, header)[0]) for header in ("yes", "no")] == [2, 3]


@pytest.mark.parametrize(("text", "words"), [
    ("400,410,420\n0.5,0.25,0.1\n", "may be the numbers of the columns"),
    ("0\n5\n7\n", "may be the numbers of the columns"),
    ("a,b\n", "no line below the names a, b"),
    ("a,b\n1,2,3\n", "2 names above lines of 3 numbers"), ("a,b\n1,2\n3\n", "line 3 has 1 cells, the first line 2"),
    ("a,b\n1,2\n3,x\n", r"line 3, column 2 \(b\): expected a number, got 'x'"),
    ("a,b\n1,2\n\n3,\n", r"line 4, column 2 \(b\): expected a number, got nothing"), ("", "it is empty"),
    ('a,"b\n1,2\n', "unexpected end of data"), ("1\n2\n\n4\n", "line 3 is empty, which in a single column may be"),
    ("a\n\n4\n", "line 2 is empty"), ("\n1\n4\n", "line 1 is empty"),
])
def test_tables_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=f"not lines of numbers separated by commas: .*{words}"):
        inputs.csv(text.encode())


@pytest.mark.parametrize("text", ["0,1,2\n", "5\n0\n", "1\n2\n", "3,5,9\n1,2,3\n"])
def test_integers_that_are_examples(text: str) -> None:
    assert len(inputs.csv(text.encode())[0]) == text.count("\n")


def test_empty_lines_that_can_be_nothing_else_are_left_out() -> None:
    assert inputs.csv(b"1\n2\n\n \n")[0].tolist() == [[1.0], [2.0]]
    assert inputs.csv(b"\n1.5,2\n\n3,4\n")[0].tolist() == [[1.5, 2.0], [3.0, 4.0]]


def test_known_names_decide() -> None:
    content = b"0,1,2\n2.5,3,4\n"
    assert inputs.csv(content, known=["2", "1", "0"])[1] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="header: expected auto, yes, no, got 'maybe'"):
        inputs.csv(content, "maybe")


def write(folder: Path, kind: str, names: list[str] | None, x: Any) -> Path:
    """Write features with names as a CSV file or an npz archive, under a name that says nothing."""
    path = folder / "features"
    if kind == "csv":
        lines = [",".join(map(repr, row)) for row in np.asarray(x, float).tolist()]
        path.write_text("\n".join([*([",".join(names)] if names else []), *lines]), "utf-8")
    else:
        with path.open("wb") as file:
            np.savez(file, x=x, **({"feature_names": np.asarray(names)} if names else {}))
    return path


@pytest.mark.parametrize("kind", ["csv", "npz"])
@pytest.mark.parametrize(("names", "expected"), [
    (["a", "b", "c"], [[1.0, 2.0, 3.0]]), (["c", "a", "b"], [[2.0, 3.0, 1.0]]), (None, [[1.0, 2.0, 3.0]]),
    (["a", "b", "d"], r"lacks 'c'; has also 'd'"), (["a", "b", "A"], r"lacks 'c'; has also 'A'"),
    (["x", "y", "z"], "expected the features a, b, c, by which the network was trained; the file lacks 'a', 'b', 'c'"),
])
def test_columns_are_put_in_the_networks_order(kind: str, names: Any, expected: Any, tmp_path: Path) -> None:
    path = write(tmp_path, kind, names, [[1.0, 2.0, 3.0]])
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            tables.read_table(path, known=["a", "b", "c"])
    else:
        assert tables.read_table(path, known=["a", "b", "c"]).x.tolist() == expected
    assert tables.read(path).tolist() == [[1.0, 2.0, 3.0]]


def test_notes_say_what_the_first_line_is(tmp_path: Path) -> None:
    def note(text: str, known: Any = None) -> str:
        (tmp_path / "x.csv").write_text(text, "utf-8")
        return tables.read_table(tmp_path / "x.csv", known=known).note

    known = ["a", "b"]
    assert note("a,b\n1,2", known) == "the first line names the columns: a, b"
    assert note("b,a\n1,2", known) == "the first line names the columns: b, a; taken as a, b"
    assert note("1.5,2\n3,4.5", known) == "no line of names; columns are taken as a, b"
    assert note("a,b\n1,2") == (
        "the first line names the columns: a, b; the network keeps no names to compare them with")
    assert note("1.5,2") == "no line of names"


@pytest.mark.parametrize(("names", "words"), [
    (np.array(["a", "b"]), "feature_names: expected 3 different names, one for each feature, got shape"),
    (np.array(["a", "b", "a"]), "feature_names: expected 3 different names"),
    (np.array([1, 2, 3]), r"feature_names: expected strings, such as numpy.asarray\(names, dtype=str\), got dtype int"),
    (np.array(["a", "b", "c"], object), "feature_names: expected strings.* nothing is unpickled"),
])
def test_names_that_do_not_fit_are_refused(names: Any, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.eye(3), y=[0, 1, 1], feature_names=names)
    for read in (lambda path: tables.read(path, "x"), datasets.load):
        with pytest.raises(InputError, match=words):
            read(tmp_path / "mine.npz")


def test_data_sets_keep_names(tmp_path: Path) -> None:
    x, y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2
    np.savez(tmp_path / "mine.npz", x=x, y=y, feature_names=["a", "b", "c"])
    assert datasets.load(tmp_path / "mine.npz").feature_names == ("a", "b", "c")
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    assert datasets.load(tmp_path / "mine.npz").feature_names is None
