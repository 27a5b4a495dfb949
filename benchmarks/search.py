"""A grid search with five folds, beside scikit-learn's over the same estimator and over its own: seconds.

    pip install '.[sklearn]' && python benchmarks/search.py

16 candidates (four penalties, four learning rates) on generated images of ten classes, the pixels of a digit wide or of
a small photograph; every fit makes the same number of updates, and nothing is refitted. Before anything is timed, the
search has to rank the candidates in float64 as ``GridSearchCV`` does. Then all take turns, round by round, in processes
that have begun and imported everything. Writes search.json and search.md in ``--out``.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: small matrices gain nothing from more

import numpy as np
import sklearn
from _cpu_tables import facts, machine, ratio, summary, table
from _gpu_section import write_json
from environments import ROOT
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier as Theirs

from xpnet import GridSearch, MLPClassifier

PENALTIES, RATES = [0.0, 1e-5, 1e-4, 1e-3], [0.001, 0.003, 0.01, 0.03]
#: Name: examples, features, hidden widths, passes over the data.
CASES: dict[str, tuple[int, int, tuple[int, ...], int]] = {
    "150 x 4, (10,)": (150, 4, (10,), 20),
    "400 x 64, (20,)": (400, 64, (20,), 10),
    "1797 x 64, (50,)": (1797, 64, (50,), 5),
    "1797 x 64, (50, 50)": (1797, 64, (50, 50), 5),
    "2000 x 784, (100,)": (2000, 784, (100,), 1),
    "1797 x 64, (512,)": (1797, 64, (512,), 1),
}
WIDTHS = "1797 x 64, 16 widths"
SEARCH, SAME, THEIRS = "GridSearch", "GridSearchCV, same estimator", "GridSearchCV, scikit-learn's MLP"
TEXT = """# A grid search: xpnet beside scikit-learn

Made by `python benchmarks/search.py{options}`. {facts}

Seconds for 16 candidates on five folds (80 fits of a fixed number of updates, batches of 200, Adam, float32, no refit),
on generated images of ten classes: medians of {rounds} interleaved rounds. "2 jobs" is joblib's: two
processes; the others are one process, on one core. Each has one BLAS thread, which is the fastest for matrices this
small.

{table}

As ratios, round by round: how many times as fast is `GridSearch`?

{ratios}

- In float64, `GridSearch` and `GridSearchCV` over the same estimator gave every candidate the same rank in every case,
  and scores that differ by at most {apart:.0e}. In float32, where training makes more of rounding, a few can change
  places. scikit-learn's own network has other initial weights and another order of batches; its scores are others.
- The candidates differ in `l2` and `learning_rate_init`, so that all 16 of a fold can train side by side. They are cut
  into groups whose arrays stay in the cache: the wider the layers, the smaller the groups, and the less is gained.
- Where candidates differ in `hidden_layer_sizes` ({widths}) nothing trains side by side, and nothing is gained.
"""


def data(n: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of ten classes, in grey levels 0 to 1: a pattern for each class, moved, scaled, and noisy."""
    draw = np.random.default_rng(0)
    y = draw.integers(10, size=n)
    patterns = draw.uniform(size=(10, features))
    x = draw.uniform(0.3, 1.0, (n, 1)) * patterns[y] + draw.normal(0.0, 0.35, (n, features))
    return np.clip(x, 0.0, 1.0), y


def methods(
    case: str, made: tuple[int, int, tuple[int, ...], int], dtype: str = "float32"
) -> dict[str, Callable[[], Any]]:
    """Return functions that search, by name; each gives the fitted search."""
    n, features, hidden, epochs = made
    x, y = data(n, features)
    x = x.astype(dtype)
    fixed: dict[str, Any] = {"max_iter": epochs, "tol": 0.0, "n_iter_no_change": epochs, "random_state": 0}
    ours, theirs = MLPClassifier(hidden, **fixed), Theirs(hidden, **fixed)
    grid: dict[str, Any] = {"learning_rate_init": RATES, "l2": PENALTIES}
    if case == WIDTHS:
        grid = {"hidden_layer_sizes": [(20 + 4 * i,) for i in range(16)]}
    their_grid = {{"l2": "alpha"}.get(name, name): values for name, values in grid.items()}

    def two(search: Any) -> Any:
        with parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
            return search.fit(x, y)

    def cross(estimator: Any, own: dict[str, Any], jobs: int | None = None) -> Any:
        return GridSearchCV(estimator, own, refit=False, n_jobs=jobs)

    return {
        SEARCH: lambda: GridSearch(ours, grid, refit=False).fit(x, y),
        SAME: lambda: cross(ours, grid).fit(x, y),
        f"{SAME}, 2 jobs": lambda: two(cross(ours, grid)),
        THEIRS: lambda: cross(theirs, their_grid).fit(x, y),
        f"{THEIRS}, 2 jobs": lambda: two(cross(theirs, their_grid)),
    }


def apart(mine: Any, theirs: Any) -> float:
    """Return how far the scores of two searches lie apart, which have to rank alike.

    Raises
    ------
    ValueError
        If they rank otherwise.
    """
    ranks, expected = mine.cv_results_["rank_test_score"], theirs.cv_results_["rank_test_score"]
    if ranks.tolist() != expected.tolist():
        raise ValueError(f"GridSearch ranks {ranks.tolist()}, GridSearchCV {expected.tolist()}")
    return float(abs(mine.cv_results_["mean_test_score"] - theirs.cv_results_["mean_test_score"]).max())


def write(found: dict[str, Any], out: Path) -> None:
    """Write search.json and search.md."""
    write_json(out / "search.json", found)
    cases = found["cases"]
    names = list(next(iter(cases.values()))["seconds"])
    rows = [[name, *(f"{summary(each['seconds'][name])['median']:.2f}" for each in cases.values())] for name in names]
    ratios = [[name, *(f"{ratio(each['seconds'][name], each['seconds'][SEARCH])['median']:.1f}"
                       for each in cases.values())] for name in names[1:]]
    (out / "search.md").write_text(TEXT.format(
        options=found["options"], facts=facts(found["machine"]), rounds=found["rounds"],
        table=table(["seconds", *cases], rows), ratios=table(["times as fast as", *cases], ratios),
        apart=max(each["apart"] for each in cases.values()), widths=WIDTHS,
    ), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", help="parts of their names, separated by semicolons")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*converge")
    cases = {**CASES, WIDTHS: (1797, 64, (50,), 3)}
    wanted = chosen.cases.split(";") if chosen.cases else [""]
    found: dict[str, Any] = {
        "options": f' --cases "{chosen.cases}"' * bool(chosen.cases), "rounds": chosen.rounds,
        "machine": machine(None, ()), "cases": {},
    }
    found["machine"]["versions"][""]["scikit-learn"] = sklearn.__version__
    for case, made in cases.items():
        if not any(part in case for part in wanted):
            continue
        exact, known = methods(case, made, "float64"), methods(case, made)
        found["cases"][case] = {"apart": apart(exact[SEARCH](), exact[SAME]()), "seconds": {name: [] for name in known}}
        known[f"{THEIRS}, 2 jobs"]()  # which starts joblib's processes
        for _ in range(chosen.rounds):
            for name, method in known.items():
                start = time.perf_counter()
                method()
                found["cases"][case]["seconds"][name].append(time.perf_counter() - start)
        for name, seconds in found["cases"][case]["seconds"].items():
            print(f"{case}, {name}: {summary(seconds)['median']:.2f} s", flush=True)
    write(found, chosen.out)
    print(f"wrote {chosen.out / 'search.json'} and {chosen.out / 'search.md'}")


if __name__ == "__main__":
    main()
