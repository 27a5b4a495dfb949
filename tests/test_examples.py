"""The examples on a tiny data set: every part runs, and what they write has the promised form."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import datasets

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(EXAMPLES))

import _common  # noqa: E402
import claims  # noqa: E402
import pictures  # noqa: E402
import reproduce_report  # noqa: E402

KEYS = {"environment", "data", "gradient_check", "loss_curves", "lambda_search", "initialisation", "claims"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Everything, on 200 images from two seeds."""
    out = tmp_path_factory.mktemp("report")
    data = datasets.synthetic(train=200, validation=60, test=60)
    job = _common.Job(data, out, True, xpnet.Device(), 0, 2)
    results = _common.describe(job)
    for part in reproduce_report.PARTS.values():
        results |= part(job)
    results["claims"] = claims.judge(results)
    _common.write_json(out / "results.json", results)
    reproduce_report.page(job, results).write(out / "report.html")
    return out, json.loads((out / "results.json").read_text("utf-8"))


def test_results_have_the_promised_keys(written: tuple[Path, dict[str, Any]]) -> None:
    _, results = written
    assert set(results) >= KEYS
    assert {"name", "train", "validation", "test"} <= set(results["data"])
    assert len(results["gradient_check"]) == 32
    assert {"hidden", "batch_norm", "parameter", "error", "reported", "strict_error", "complex_step_error",
            "analytical_norm", "numerical_norm", "complex_step_norm"} <= set(results["gradient_check"][0])
    assert [row["figure"] for row in results["loss_curves"]] == [1, 2, 3, 4]
    for row in results["loss_curves"]:
        columns = [row[k] for k in ("steps", "train_loss", "validation_loss", "train_cost", "validation_cost")]
        assert len({len(column) for column in columns}) == 1
        assert 0 <= row["test_accuracy"] <= 1
        assert 0 <= row["validation_accuracy"] <= 1
        assert len(row["test_accuracy_by_seed"]) == 2
    search = results["lambda_search"]
    assert len(search["coarse"]) == len(search["fine"]) == 8
    for part in ("coarse", "fine"):
        accuracies = [row["validation_accuracy"] for row in search[part]]
        assert accuracies == sorted(accuracies, reverse=True)
    assert {"log10_lambda", "validation_accuracy", "test_accuracy"} <= set(search["final"])
    assert {(row["sigma"], row["batch_norm"]) for row in results["initialisation"]} == {
        (sigma, bn) for sigma in (1e-1, 1e-3, 1e-4) for bn in (True, False)}
    assert all({"claim", "reported", "measured", "holds"} <= set(row) for row in results["claims"])


def test_every_gradient_of_table_1_passes(written: tuple[Path, dict[str, Any]]) -> None:
    assert all(row["passes"] for row in written[1]["gradient_check"])


def test_figures_and_page(written: tuple[Path, dict[str, Any]]) -> None:
    out, results = written
    for number in range(1, 8):
        assert (out / f"figure{number}.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "report.html").read_text("utf-8")
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Links().feed(text)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert all(row["claim"].replace("'", "&#x27;") in text for row in results["claims"])
    assert "synthetic" in text


def test_the_pictures_show_why_small_weights_fail(tmp_path: Path) -> None:
    job = _common.Job(datasets.synthetic(train=200, validation=60, test=60), tmp_path, True, xpnet.Device(), 0, 1)
    results = pictures.run(job)
    size = {(row["sigma"], row["batch_norm"]): row["mean_abs_output"] for row in results["activations"]}
    assert size[1e-4, False] < 1e-20 < 1e-15 < size[1e-4, True]
    assert size[1e-1, False] > 1e-6
    for name in ("activations", "history", "weights", "mistakes"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_results(tmp_path: Path) -> None:
    def once() -> Any:
        job = _common.Job(datasets.synthetic(train=200, validation=60, test=60), tmp_path, True, xpnet.Device(), 3, 2)
        return reproduce_report.PARTS["figures5to7"](job)

    assert once() == once()


def test_short_runs_are_not_compared_with_the_report(written: tuple[Path, dict[str, Any]]) -> None:
    final = [row for row in written[1]["claims"] if "Final" in row["claim"]]
    assert len(final) == 2
    assert all(row["holds"] is None for row in final)


def test_a_claim_can_fail() -> None:
    def rows(better: float, worse: float, spread: float) -> list[dict[str, Any]]:
        def by_seed(name: str, mean: float) -> dict[str, Any]:
            return _common.by_seed(name, [mean - spread, mean, mean + spread] if spread else [mean])

        return [{"hidden": hidden, "batch_norm": bn, **by_seed("final_train_loss", better if bn else worse),
                 **by_seed("final_validation_loss", 1.0), **by_seed("roughness", 0.1)}
                for hidden in (_common.HIDDEN_3, _common.HIDDEN_9) for bn in (False, True)]

    def holds(*arguments: float) -> list[bool | None]:
        data = {"data": {"name": "CIFAR-10"}, "environment": {"quick": False}}
        return [row["holds"] for row in claims.judge({**data, "loss_curves": rows(*arguments)})]

    assert holds(1.0, 2.0, 0.1) == [True, None, True, None]
    assert holds(2.0, 1.0, 0.1) == [False, None, False, None]
    assert holds(2.0, 1.0, 0.0) == [None] * 4  # one seed contradicts nothing


def test_difference_gives_an_interval() -> None:
    mean, margin, told = claims.difference(np.array([1.0, 1.1, 1.2]), np.array([0.0, 0.0, 0.3]))
    assert mean == pytest.approx(1.0)
    assert margin == pytest.approx(4.3026527 * 0.1 / 3**0.5)
    assert "over 3 seeds" in told
    assert "do not tell" in claims.difference(np.array([1.0, -1.0]), np.zeros(2))[2]
    mean, margin, told = claims.points(np.array([0.5]), np.array([0.5]), 10_000)
    assert mean == 0.0
    assert margin == pytest.approx(196 * 0.5**0.5 / 100)
    assert "10,000 test images" in told


@pytest.mark.parametrize(("mean", "margin", "verdict"), [
    (1.0, 2.0, True), (-1.0, 2.0, None), (-1.0, 0.5, False), (-1.0, float("nan"), None),
])
def test_a_direction_fails_only_beyond_its_margin(mean: float, margin: float, verdict: bool | None) -> None:
    assert claims.direction(mean, margin, rises=True) is verdict
    assert claims.direction(-mean, margin, rises=False) is verdict


def test_a_part_that_fails_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(job: Any) -> dict[str, Any]:
        raise xpnet.DivergenceError("the loss was not finite")

    monkeypatch.setitem(reproduce_report.PARTS, "table2", fails)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: datasets.synthetic(train=100, validation=20, test=20))
    monkeypatch.setattr(sys, "argv", ["reproduce_report.py", "--out", str(tmp_path), "--only", "table2, table1,table1"])
    assert reproduce_report.main() == 1
    assert "table2 failed: the loss was not finite" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "results.json").read_text("utf-8"))["gradient_check"]) == 32


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--only", "table9"], "table1"), (["--device", "gpu"], "'cpu', 'cuda'"), (["--data", "/no/such"], "/no/such"),
    (["--seed", "-1"], "0 or more"), (["--seeds", "-1"], "at least 1"),
], ids=lambda v: v[0] if isinstance(v, list) else "")
def test_wrong_arguments(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run("reproduce_report.py", "--quick", "--out", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_one_example_alone(tmp_path: Path) -> None:
    done = run("table1.py", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "data: synthetic" in done.stdout
    assert len(json.loads((tmp_path / "table1.json").read_text("utf-8"))["gradient_check"]) == 32
