"""The README: its Python runs, and its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xpnet.cli import main

ROOT = Path(__file__).parents[1]
if not (ROOT / "README.md").is_file():
    pytest.skip("the README is not beside the tests", allow_module_level=True)
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 2


@pytest.mark.slow
def test_the_ten_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(SNIPPETS[0], "README.md", "exec"), {})  # noqa: S102
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\{'loss': 1\.\d+, 'cost': \d\.\d+, 'accuracy': 0\.[56]\d+\}", first)
    assert len(second.split()) == 3


def test_the_lines_on_own_arrays_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[1], "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "True (3,)\n"
    assert (tmp_path / "network.safetensors").is_file()


def test_files_and_pictures_exist() -> None:
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert linked
    assert [link for link in linked if not (ROOT / link).exists()] == []


def test_commands_are_the_command_lines_own() -> None:
    commands = re.findall(r"^    xpnet (\w+)", README, re.MULTILINE)
    assert {"train", "gradcheck", "data", "devices"} <= set(commands)
    for command in set(commands):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
