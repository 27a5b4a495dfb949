"""README and docs: their Python runs and prints what they say, their commands parse, and the reference is complete."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import backends, optional

import xpnet
from xpnet import datasets
from xpnet.cli import main
from xpnet.cli.commands import _parser
from xpnet.nn.layers import LAYERS

ROOT = Path(__file__).parents[1]
if not (ROOT / "README.md").is_file():
    pytest.skip("the README is not beside the tests", allow_module_level=True)
README = (ROOT / "README.md").read_text("utf-8")
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] != "_build")]

# Python ---------------------------------------------------------------------------------------------------------

#: What a block may need, as its first line says: ``# needs Dask``.
NEEDS = {"a GPU": "cupy", "Dask": "dask", "scikit-learn": "sklearn", "a script of its own": "script"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


class Block(NamedTuple):
    """A Python block of a page: where it begins, what it shows as its output, and what it needs."""

    line: int
    code: str
    output: str | None
    needs: str | None


def blocks(text: str) -> list[Block]:
    """Find the Python blocks; a bare or ``text`` block right behind one is its output."""
    fences, found = list(FENCE.finditer(text)), []
    for fence, following in itertools.zip_longest(fences, fences[1:]):
        if fence[1] == "python":
            next_to = following and following[1] in ("", "text") and not text[fence.end() : following.start()].strip()
            needs = re.match(r"# needs (.*)\n", fence[2])
            found.append(Block(text[: fence.start(2)].count("\n"), fence[2], following[2] if next_to else None,
                               needs and needs[1]))
    return found


def agree(shown: str, printed: str) -> bool:
    """Tell whether outputs agree: words and whole numbers exactly, others to a tenth or 0.02, or a power of ten."""
    texts = [NUMBER.sub("#", " ".join(text.split())) for text in (shown, printed)]
    numbers = [NUMBER.findall(text) for text in (shown, printed)]
    return texts[0] == texts[1] and all(map(near, *numbers))


def near(a: str, b: str) -> bool:
    """Tell whether two numbers agree."""
    if a == b or (a + b).isdecimal():
        return a == b
    close = {"rel": 9.0} if "e" in a + b else {"rel": 0.1, "abs": 0.02}
    return float(a) == pytest.approx(float(b), **close) and float(b) == pytest.approx(float(a), **close)


def run(name: str, text: str, given: str | None = None) -> None:
    """Run a page's blocks in order in one namespace: those that need nothing, or what is given."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, code, output, needs in blocks(text):
        if needs in (None, given):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + code, name, "exec", dont_inherit=True), names)  # noqa: S102  # our own pages
            if output is not None and not agree(output, printed.getvalue()):
                pytest.fail(f"{name}:{line}: expected the output\n{output}\ngot\n{printed.getvalue()}", pytrace=False)


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have files written elsewhere, and layers registered for one test only."""
    monkeypatch.chdir(tmp_path)
    before = dict(LAYERS)
    yield
    LAYERS.clear()
    LAYERS.update(before)


def page(path: Path) -> Any:
    return pytest.param(path, id=path.relative_to(ROOT).as_posix())


WITH_CODE = [path for path in PAGES if blocks(path.read_text("utf-8"))]


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("path", [page(path) for path in WITH_CODE])
def test_the_blocks_of_a_page_run(path: Path) -> None:
    run(path.name, path.read_text("utf-8"))


@pytest.mark.usefixtures("apart")
@pytest.mark.slow
@pytest.mark.filterwarnings(  # Dask's own
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::UserWarning:distributed",
    "ignore::DeprecationWarning")
@pytest.mark.parametrize(("path", "needs"), [
    pytest.param(path, needs, id=f"{path.name}-{needs}") for path in WITH_CODE for needs in NEEDS
    if needs in {block.needs for block in blocks(path.read_text("utf-8"))}
])
def test_blocks_that_need_more_run_where_it_is(path: Path, needs: str) -> None:
    what = NEEDS[needs]
    text = path.read_text("utf-8")
    if what == "script":
        for block in blocks(text):
            if block.needs == needs:
                Path("script.py").write_text(block.code, "utf-8")
                done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
                assert done.stdout
        return
    if what == "cupy" and what not in backends()[0]:
        pytest.skip(f"the block needs a GPU: {backends()[1]['cupy']}")
    if what != "cupy":
        optional(what)
    run(path.name, text, needs)


def test_blocks_need_what_is_known() -> None:
    needs = {block.needs for path in WITH_CODE for block in blocks(path.read_text("utf-8"))}
    assert needs - {None} <= set(NEEDS)
    assert len(WITH_CODE) > 8


CANARY = "# Page\n\n```python\nx = 1.5\n```\n\n```python\nprint('x is', x)\n```\n\n```text\nx is 1.52\n```\n"


def test_the_runner_runs_blocks_in_order_in_one_namespace() -> None:
    assert [block.line for block in blocks(CANARY)] == [3, 7]
    run("page.md", CANARY)


@pytest.mark.parametrize(("a", "b", "same"), [
    ("(3, 2)", "(3,  2)\n", True), ("(3, 2)", "(3, 4)", False), ("0.91", "0.92", True), ("0.91", "1", True),
    ("0.5", "0.7", False), ("1e-09", "4e-10", True), ("1e-9", "1e-11", False), ("a 1.0", "b 1.0", False),
    ("1.0", "1.0 2.0", False),
])
def test_outputs_agree_up_to_rounding_of_numbers(a: str, b: str, same: bool) -> None:
    assert agree(a, b) is same


@pytest.mark.parametrize(("old", "new", "told"), [
    ("x is 1.52", "x is 1.9", r"page.md:7: expected the output"), ("x is 1.52", "y is 1.5", "expected the output"),
    ("x = 1.5", "x = 2", "expected the output"), ("print('x is', x)\n", "", "expected the output"),
])
def test_the_runner_sees_a_wrong_output(old: str, new: str, told: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=told):
        run("page.md", CANARY.replace(old, new))


def test_the_runner_sees_an_error_and_where_it_is() -> None:
    with pytest.raises(NameError) as failed:
        run("page.md", CANARY.replace("x = 1.5", "z = 1.5"))
    assert (str(failed.traceback[-1].path), failed.traceback[-1].lineno + 1) == ("page.md", 8)


def test_the_runner_leaves_out_only_what_needs_more() -> None:
    marked = CANARY.replace("x = 1.5", "# needs Dask\nx = 1.5")
    run("page.md", marked, "Dask")
    with pytest.raises(NameError):
        run("page.md", marked)


@pytest.mark.usefixtures("apart")
def test_the_lines_on_own_arrays_run(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks(README)[1].code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "True (3,)\n"
    assert Path("network.safetensors").is_file()


def test_the_examples_in_docstrings_run() -> None:
    package = Path(xpnet.__file__).parent
    with_examples = [path for path in package.rglob("*.py") if ">>> " in path.read_text("utf-8")]
    assert with_examples
    for path in with_examples:
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        found = doctest.testmod(importlib.import_module(name))
        assert (found.failed, found.attempted > 0) == (0, True), path.name


# Files and commands -----------------------------------------------------------------------------------------------


def test_files_and_pictures_exist() -> None:
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert linked
    assert [link for link in linked if not (ROOT / link).exists()] == []


def commands(pages: Sequence[Path] = PAGES) -> list[str]:
    """Return the command lines of xpnet in the README and the docs."""
    return [line for path in pages for line in re.findall(r"^    (xpnet .*)$", path.read_text("utf-8"), re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_the_commands_of_their_own_page_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = DOCS / "howto" / "command_line.md"
    text, data = path.read_text("utf-8"), datasets.synthetic(train=60, validation=20, test=20)
    files = [fence[2] for fence in FENCE.finditer(text) if fence[1] == "toml"]
    for name, content in zip(("run.toml", "sweep.toml"), files, strict=True):
        Path(name).write_text(content, "utf-8")
    run(path.name, text)
    load = datasets.load
    monkeypatch.setattr(
        datasets, "load", lambda name=None, **sizes: load(name, **sizes) if name == "mine.npz" else data)
    assert len(commands([path])) > 8
    for line in commands([path]):
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
    assert {"run", "run1", "sweep", "classes.csv", "classes.json", "probabilities.npy", "sweep.html", "mine.csv"} <= {
        found.name for found in Path().iterdir()}
    told = re.findall(r"^    (run\.toml: .*)$", text, re.MULTILINE)
    for wrong, line in zip(("batchnorm = true", 'hidden = "50,50"'), told, strict=True):
        Path("run.toml").write_text(wrong, "utf-8")
        capsys.readouterr()
        assert main(["train", "--config", "run.toml"]) == 2
        assert capsys.readouterr().err == f"xpnet train: error: {line}\n"


def test_commands_are_the_command_lines_own() -> None:
    known = {"train", "sweep", "predict", "report", "gradcheck", "data", "devices"}
    assert known <= {line.split()[1] for line in commands()}
    for line in commands():
        _parser().parse_args(shlex.split(line, comments=True)[1:])


def test_a_command_that_is_not_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["train", "--no-such-option"])
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0


# The reference ----------------------------------------------------------------------------------------------------

#: The modules whose public names are promised; the others are rooms inside.
PUBLIC = ("datasets", "estimators", "intervals", "nn.formats.convert", "nn.formats.onnx", "nn.gradcheck",
          "nn.initializers", "nn.layers", "nn.losses", "nn.summary", "plotting", "random", "report", "sweeps.space",
          "training.optimizers", "training.schedules")


def documented() -> list[str]:
    """Return what the reference lists, each as its full name."""
    found = []
    for path in (DOCS / "reference").glob("*.rst"):
        module = ""
        for line in path.read_text("utf-8").splitlines():
            directive = re.match(r"\.\. (\w+):: ([\w.]+)", line)
            if directive and directive[1] == "currentmodule":
                module = directive[2]
            elif directive and directive[1] in ("automodule", "data"):
                found.append(directive[2])
            elif name := re.fullmatch(r"   ([A-Za-z_][\w.]*)", line):
                found.append(f"{module}.{name[1]}")
    return [name for name in found if "xpnet" in name]


def resolve(name: str) -> Any:
    """Return what a full name stands for."""
    with contextlib.suppress(ModuleNotFoundError):
        if name != "xpnet.sweep":  # the function, which hides the module
            return importlib.import_module(name)
    owner, _, own = name.rpartition(".")
    return getattr(importlib.import_module(owner), own)


def test_the_reference_has_every_public_name_once() -> None:
    names = documented()
    listed = [id(resolve(name)) for name in names]
    twice = [name for name, thing in zip(names, listed, strict=True) if listed.count(thing) > 1]
    assert not twice
    modules = {"xpnet": xpnet, **{f"xpnet.{name}": importlib.import_module(f"xpnet.{name}") for name in PUBLIC}}
    missing = [f"{module}.{name}" for module, found in modules.items() for name in found.__all__
               if id(getattr(found, name)) not in listed]
    assert not missing


def test_the_reference_has_nothing_private() -> None:
    assert len(documented()) > 80
    assert not [name for name in documented() if any(part.startswith("_") for part in name.split("."))]
