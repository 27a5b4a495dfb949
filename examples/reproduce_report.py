"""Run every table and figure of the report, judge its claims, and write results.json and report.html."""

from __future__ import annotations

import os

# Two parts at a time, each on one core, are faster than one whose small products share the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import claims
import figures1to4
import figures5to7
import table1
import table2
from _common import Job, arguments, describe, make_job, write_json

from xpnet.report import Page

#: The longest first.
PARTS = {"table2": table2.run, "figures1to4": figures1to4.run, "figures5to7": figures5to7.run, "table1": table1.run}
ACCURACY = "{:.2%}"


def page(job: Job, results: dict[str, Any]) -> Page:
    """Lay out the page: claims first, then each table and figure beside what was reported."""
    what = "shortened run, " if job.quick else ""
    seeds = f"mean over {job.seeds} seeds" if job.seeds > 1 else "one seed"
    made = Page("k-layer networks with batch norm, measured again", subtitle=f"{what}{job.on}, {seeds}")
    made.text(f"Data: {job.data.source}. Every number is made by this run; 'reported' is the report's."
              + (" A margin is half of the 95 % interval over the seeds." if job.seeds > 1 else ""))
    made.heading("Claims").table(
        ["claim", "holds", "reported", "measured", "remark"],
        [[row[k] for k in ("claim", "holds", "reported", "measured", "remark")] for row in results["claims"]],
        caption="The report's claims; a dash is one that this run does not tell.",
    )
    if "gradient_check" in results:
        columns = ["parameter", "reported", "error", "strict_error", "complex_step_error", "analytical_norm",
                   "numerical_norm", "complex_step_norm", "passes"]
        made.heading("Table 1: errors of the gradients").table(
            ["hidden", "batch norm", *map(words, columns)],
            [[str(r["hidden"]), "yes" if r["batch_norm"] else "no", *[r[c] for c in columns]]
             for r in results["gradient_check"]],
            formats=dict.fromkeys(map(words, columns[1:-1]), ".2e"),
            caption="error: | |a| - |n| | / max(1e-5, |a| + |n|) for the norms of the analytical gradient a and the "
            "numerical one n (central differences, h = 1e-6); strict error: |a - n| instead of the difference of "
            "norms; complex step error: the same against the complex step. The gradient of a bias that batch norm "
            "cancels is 0: there n is rounding noise, and the norms are judged.",
        ).figure(job.out / "table1.png", caption="Table 1 as a picture", alt="heat map of the errors", drawing=True)
    if "loss_curves" in results:
        made.heading("Figures 1 to 4: loss with and without batch norm")
        columns = ["final_train_loss", "final_validation_loss", "roughness", "train_accuracy", "validation_accuracy",
                   "test_accuracy"]
        made.table(["figure", "hidden", "batch norm", *map(words, columns)],
                   [[r["figure"], str(r["hidden"]), "yes" if r["batch_norm"] else "no", *cells(r, columns)]
                    for r in results["loss_curves"]], formats=percents(columns),
                   caption="At the end of two cycles, on all images of each split. The curves below show the loss "
                   f"on the first {len(job.data.validation.y):,} training images; roughness is theirs.")
        for row in results["loss_curves"]:
            name = f"hidden layers {row['hidden']}, {'with' if row['batch_norm'] else 'without'} batch norm"
            _curves(made, job, f"Figure {row['figure']}", name, {name: row})
    if "lambda_search" in results:
        _search(made, job, results["lambda_search"])
    if "initialisation" in results:
        made.heading("Figures 5 to 7: sensitivity to the initial weights")
        columns = ["test_accuracy", "validation_accuracy", "final_train_loss"]
        made.table(["sigma", "batch norm", *map(words, columns)],
                   [[r["sigma"], "yes" if r["batch_norm"] else "no", *cells(r, columns)]
                    for r in results["initialisation"]], formats=percents(columns))
        for number in (5, 6, 7):
            made.figure(job.out / f"figure{number}.png", drawing=True, alt=f"loss curves of figure {number}",
                        caption=f"Figure {number}: without batch norm left, with batch norm right ({job.on})")
        columns = ["test_accuracy", "final_train_loss"]
        made.table(["sigma", "lambda", *map(words, columns)],
                   [[r["sigma"], r["l2"], *cells(r, columns)] for r in results["initialisation_penalty"]],
                   formats=percents(columns),
                   caption="Without batch norm at sigma = 0.001, by lambda: the penalty decides whether it learns.")
    environment = results["environment"]
    made.heading("How it was made").table(
        ["", "value"], [[k, str(v)] for k, v in environment.items() if k != "seconds"])
    return made.table(["part", "seconds"], [[k, v] for k, v in environment["seconds"].items()])


def percents(columns: list[str]) -> dict[str, str]:
    """Return the formats of accuracies."""
    return {words(name): ACCURACY for name in columns if "accuracy" in name}


def words(name: str) -> str:
    """Return a key of the results as a heading."""
    return name.replace("_", " ")


def cells(row: dict[str, Any], columns: list[str]) -> list[Any]:
    """Return a row's numbers, with the margin over seeds where there is one."""
    return [(row[name], row.get(f"{name}_margin")) for name in columns]


def _curves(made: Page, job: Job, figure: str, name: str, rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        made.chart({f"{split} {kind}": (row["steps"], row[f"{split}_{kind}"])
                    for split in ("train", "validation") for kind in ("loss", "cost")},
                   caption=f"{figure}: {name} ({job.on})", x_label="update", y_label="loss, cost (nats)")


def _search(made: Page, job: Job, search: dict[str, Any]) -> None:
    reported = [(-2.41, 0.5518), (-2.47, 0.5480), (-3.10, 0.5376)]
    columns = ["log10_lambda", "validation_accuracy"]
    made.heading("Table 2: the search for lambda").table(
        ["rank", "reported log10 lambda", "reported accuracy", *map(words, columns)],
        [[i + 1, *(reported[i] if i < 3 else (None, None)), *cells(row, columns)]
         for i, row in enumerate(search["coarse"])],
        formats={"reported accuracy": ACCURACY, **percents(columns)}, caption="Coarse search.")
    made.table(
        ["rank", *map(words, columns)], [[i + 1, *cells(row, columns)] for i, row in enumerate(search["fine"])],
        formats=percents(columns),
        caption="Fine search in ({:.2f}, {:.2f}); the report's best was -2.3434 with 55.28 % in (-3.40, -2.11)."
        .format(*search["interval"]))
    made.figure(job.out / "table2.png", caption=f"Both searches ({job.on})", alt="validation accuracy by lambda",
                drawing=True)
    final = search["final"]
    reports = {"validation": claims.REPORTED_VALIDATION, "test": claims.REPORTED_TEST}
    ensemble = "" if final["ensemble_networks"] == 1 else (
        f" The networks of {final['ensemble_networks']} seeds as one: {final['ensemble_test_accuracy']:.2%} test.")
    made.table(["split", "reported", "measured"],
               [[name, value, *cells(final, [f"{name}_accuracy"])] for name, value in reports.items()],
               formats=dict.fromkeys(("reported", "measured"), ACCURACY),
               caption=f"The best, log10 lambda = {final['log10_lambda']:.3f}, after 3 cycles.{ensemble}")


def main() -> int:
    """Run the parts that were asked for; 1 if one failed."""
    parser = arguments(__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(PARTS)}, separated by commas")
    given = parser.parse_args()
    chosen = list(dict.fromkeys(name.strip() for name in given.only.split(","))) if given.only else list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    job = make_job(given)
    start = time.perf_counter()
    results, failures = describe(job), []
    pool = ThreadPoolExecutor(min(len(PARTS), os.cpu_count() or 1) if job.device.is_host else 1)
    running = {name: pool.submit(PARTS[name], job) for name in chosen}
    try:
        for name, part in running.items():
            try:
                results |= part.result()
            except (ArithmeticError, MemoryError, OSError) as error:  # the other parts are worth having
                failures.append(f"{name} failed: {error}")
    except KeyboardInterrupt:
        print("interrupted: nothing was written but the figures that were done", file=sys.stderr, flush=True)
        os._exit(130)  # the threads would train on to their ends
    results["claims"] = claims.judge(results)
    job.timings["everything"] = round(time.perf_counter() - start, 2)
    write_json(job.out / "results.json", results)
    page(job, results).write(job.out / "report.html")
    signs = {True: "holds", False: "does NOT hold", None: "not told"}
    for row in results["claims"]:
        print(f"{signs[row['holds']]:>13}  {row['claim']}: reported {row['reported']}, measured {row['measured']}")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"on {job.on}, in {job.timings['everything']:.0f} s: {job.out / 'report.html'}, {job.out / 'results.json'}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
