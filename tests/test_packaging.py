"""What is shipped: the version, the promised dependencies, the command, and the files that travel along."""

from __future__ import annotations

import configparser
import importlib
import inspect
import os
import re
import textwrap
import tomllib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

import xpnet
from xpnet.nn import layers

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def name_of(requirement: str) -> str:
    """Return the normalised name of what a requirement asks for."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def bounds(requirements: list[str], operator: str) -> dict[str, str]:
    """Return the version after ``operator`` of each plain requirement, without wildcards and trailing zeros."""
    found = {}
    for requirement in requirements:
        name, _, version = requirement.partition(operator)
        found[name] = re.sub(r"(\.(0|\*))+$", "", version)
    return found


def installed() -> metadata.Distribution:
    try:
        return metadata.distribution("xpnet")
    except metadata.PackageNotFoundError:
        if "TOX_ENV_NAME" in os.environ:
            pytest.fail("tox tests an installed package, and xpnet is not installed")
        pytest.skip("xpnet is imported from the source tree, not installed: pip install -e .")


def test_helpers_tell_requirements_apart() -> None:
    assert [name_of(r) for r in ("numpy>=2.0", "array_api_compat", "xpnet[test]")] == [
        "numpy", "array-api-compat", "xpnet",
    ]
    assert bounds(["numpy>=2.0", "a-b>=1.10"], ">=") == bounds(["numpy==2.0.*", "a-b==1.10.0"], "==")
    assert bounds(["numpy>=2.0"], ">=") != bounds(["numpy==2.1.*"], "==")


def test_dependencies_are_the_five_promised() -> None:
    names = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    assert names == {"numpy", "array-api-compat", "matplotlib", "tqdm", "safetensors"}
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("cuda12", {"cupy-cuda12x"}),
        ("cuda13", {"cupy-cuda13x"}),
        ("data", {"pooch", "tqdm"}),
        ("dask", {"distributed"}),
        ("pandas", {"pandas"}),
        ("sklearn", {"scikit-learn"}),
        ("onnx", {"onnx"}),
        ("docs", {"sphinx", "sphinx-gallery", "numpydoc"}),
        ("test", {"pytest", "hypothesis", "array-api-strict"}),
        ("dev", {"xpnet", "tox", "ruff", "mypy"}),
    ],
)
def test_extra_is_declared(extra: str, names: set[str]) -> None:
    assert names <= {name_of(requirement) for requirement in PROJECT["optional-dependencies"][extra]}


def test_no_extra_asks_for_torch() -> None:
    extras = PROJECT["optional-dependencies"].values()
    assert "torch" not in {name_of(requirement) for requirements in extras for requirement in requirements}


def test_lowest_versions_tested_are_the_ones_declared() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string((ROOT / "tox.ini").read_text("utf-8"))
    pinned = bounds(re.findall(r"^lowest: (.*)$", tox["testenv"]["deps"], re.MULTILINE), "==")
    declared = bounds(PROJECT["dependencies"], ">=")
    assert {name: pinned.get(name) for name in declared} == declared


def test_hooks_before_a_commit_have_the_versions_of_tox() -> None:
    tox = (ROOT / "tox.ini").read_text("utf-8")
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    for name, repository in (("ruff", "ruff-pre-commit"), ("mypy", "mirrors-mypy")):
        [pinned] = re.findall(rf"judges, \w+: {name}==(\S+)", tox)
        assert f"/{repository}\n    rev: v{pinned}\n" in hooks


def test_version_is_read_from_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", xpnet.__version__)
    assert "version" in PROJECT["dynamic"]
    assert installed().version == xpnet.__version__


def test_changelog_and_citation_know_the_version() -> None:
    assert f"\n## {xpnet.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\nversion: {xpnet.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_command_exists() -> None:
    module, _, function = PROJECT["scripts"]["xpnet"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_command_is_installed() -> None:
    commands = [entry for entry in installed().entry_points if entry.group == "console_scripts"]
    assert {entry.name: entry.value for entry in commands} == PROJECT["scripts"]


@pytest.mark.parametrize("name", ["py.typed", "report/_page.css", "report/_page.js", "backend/cuda/persistent.cu"])
def test_file_travels_with_the_package(name: str) -> None:
    assert resources.files("xpnet").joinpath(name).is_file()


def test_licence_is_mit() -> None:
    assert PROJECT["license"] == "MIT"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.startswith("MIT License\n")
    assert "xpnet contributors" in text


def test_the_layer_of_contributing_is_that_of_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    source = textwrap.dedent(text.partition("```python\n")[2].partition("   ```")[0])
    assert source.startswith("@layer\n")
    assert inspect.getsource(layers.Tanh) == source


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="outside tox, the source tree may be imported")
def test_what_is_tested_is_not_the_source_tree() -> None:
    assert not Path(xpnet.__file__).is_relative_to(ROOT / "xpnet")
