"""Write docs/report.md from a run of the examples. Run: python tools/make_report.py DIR [DIR OF A RUN WITH SEEDS]."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS.parent / "examples"))
import claims  # noqa: E402

SIGNS = {True: "holds", False: "**does not hold**", None: "not told"}
HEAD = """# The report, measured again

Made by `python tools/make_report.py DIR DIR3` from the runs below, DIR of one seed and DIR3 of three.
`report.html`, which each run writes, has all of it: the tables, the figures to zoom, and the remarks to each claim.
"""
JPEG = ("The images are a public JPEG copy of CIFAR-10 (quality 75), whose pixels are a little off the official ones: "
        "accuracies are comparable with published ones, to within such differences.\n")


def section(run: Path) -> str:
    results: dict[str, Any] = json.loads((run / "results.json").read_text("utf-8"))
    environment, data = results["environment"], results["data"]
    seeds = environment["seeds"]
    lines = [
        f"## {'One seed' if seeds == 1 else f'{seeds} seeds'}\n",
        f"`python examples/reproduce_report.py --data DIR --seeds {seeds}` on {data['name']} "
        f"({data['train']:,} training, {data['validation']:,} validation, {data['test']:,} test images), "
        f"{environment['seconds']['everything']:.0f} s on {environment['cores']} cores; "
        f"NumPy {environment['numpy']}, Python {environment['python']}.\n",
        "| claim | verdict | reported | measured | remark |", "| --- | --- | --- | --- | --- |",
        *[f"| {row['claim']} | {SIGNS[row['holds']]} | {row['reported']} | {row['measured']} | {row['remark']} |"
          for row in claims.judge(results)],
        "\n| figure | hidden layers | batch norm | final training loss | test accuracy |",
        "| --- | --- | --- | --- | --- |",
        *[f"| {row['figure']} | {row['hidden']} | {'yes' if row['batch_norm'] else 'no'} | "
          f"{row['final_train_loss']:.3f} | {row['test_accuracy']:.2%} |" for row in results["loss_curves"]],
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    runs = [Path(run) for run in sys.argv[1:]]
    if not runs:
        raise SystemExit("expected the directory of a run of examples/reproduce_report.py")
    (DOCS / "report.md").write_text("\n".join([HEAD, JPEG, *map(section, runs)]), encoding="utf-8")
    shutil.copy(runs[0] / "figure4.png", DOCS / "images" / "figure4.png")


if __name__ == "__main__":
    main()
