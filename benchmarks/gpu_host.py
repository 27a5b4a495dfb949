"""What an update on a GPU costs the host: launches, and processor time with kernels that do nothing.

    CPUCUDA_SKIP_KERNELS=1 PYTHONPATH=.:tests python -m cpucuda benchmarks/gpu_host.py

Three ways of one update stand side by side, in turns: plain, layer by layer as the array API says it, fused launches,
and one launch for a thousand updates. CuPy itself runs on the emulation in ``tests/cpucuda``, whose driver counts and
does nothing else; the emulation's own share is part of all. Times are the process's processor time, which neighbours
disturb least. Writes gpu_host.json and gpu_host.md in ``--out``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_tables import facts, machine, middle, ratio, summary, table
from _gpu_paths import WAYS, made_by
from _gpu_section import write_json
from environments import ROOT

HIDDEN = {"H3+BN": [50, 50], "H9+BN": [50, 30, 20, 20, 10, 10, 10, 10]}
#: Title, network, number of models.
CASES = [("H3+BN", "H3+BN", 0), ("H9+BN", "H9+BN", 0), ("H3+BN, 8 models", "H3+BN", 8)]
TEXT = """# What an update on a GPU costs the host

Made by `CPUCUDA_SKIP_KERNELS=1 PYTHONPATH=.:tests python -m cpucuda benchmarks/gpu_host.py`. {facts}

CuPy {cupy} on the emulation of `tests/cpucuda`, with kernels and products that do nothing: **no figure here is the time
of a GPU.** Batches of 100 of 3072 bytes, standardised; SGD with an L2 penalty; the loop of `Trainer.fit` between two
evaluations. µs are processor time per update, median and quartiles of {rounds} rounds in turns; the ratios are
taken round by round.

{table}
"""


def prepared(case: str, models: int, way: str) -> Callable[[int], None]:
    """Return a function that makes a number of updates in one of the ways."""
    import cupy

    import xpnet
    from xpnet.training import persistent
    from xpnet.training.loop import Loop

    device = xpnet.Device("cuda")
    network = xpnet.mlp(3072, HIDDEN[case], 10, batch_norm=True, standardize=True)
    trainer = xpnet.Trainer(network, l2=0.005, device=device, schedule=xpnet.CyclicLR(1e-5, 0.1, 500),
                            seed=list(range(models)) if models else 0)
    x = device.asarray(np.random.default_rng(0).integers(256, size=(5000, 3072), dtype=np.uint8))
    most, persistent.MOST = persistent.MOST, 2**40  # the emulation's two multiprocessors would have too much to do
    try:
        with made_by(way):
            trainer.start(device)
            loop = Loop(trainer, trainer.batches(x, device.asarray(np.arange(5000) % 10)), updates=1)
    finally:
        persistent.MOST = most
    if trainer.path != way:
        raise SystemExit(f"{case}: the updates are not {way}")
    if way == "persistent":
        return lambda count: loop.update_until(trainer.step + count)

    def update(count: int) -> None:
        losses = [trainer.update(*batch) for batch in loop.minibatches(trainer.step, trainer.step + count)]
        cupy.stack(losses)

    return update


def measured(case: str, models: int, rounds: int, counts: Sequence[int]) -> dict[str, Any]:
    """Return launches and times of the ways of an update: ``counts`` updates per round of each."""
    import cpucuda

    ways = {name: (prepared(case, models, name), count) for name, count in zip(WAYS, counts, strict=True)}
    found: dict[str, Any] = {name: {"us": []} for name in ways}
    for way, _ in ways.values():
        way(2)
    for _ in range(rounds):
        for name, (way, count) in ways.items():
            before, began = cpucuda.counts(), time.process_time()
            way(count)
            found[name]["us"].append(1e6 * (time.process_time() - began) / count)
            found[name] |= {kind: (n - before[kind]) / count for kind, n in cpucuda.counts().items()}
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--updates", type=int, nargs=3, default=[20, 400, 5000],
                        help=f"per round: {', '.join(WAYS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args()
    import cupy

    if cupy.ones(1).get()[0] == 1.0:
        raise SystemExit("kernels compute here: start this as its first lines say")
    found: dict[str, Any] = {"facts": machine(None, [])}
    rows = []
    for title, case, models in CASES:
        found[title] = result = measured(case, models, args.rounds, args.updates)
        plain, *others = ways = [result[way] for way in WAYS]
        rows.append([title, *(f"{way['kernels']:.3g} + {way['cublas']:.0f}" for way in ways),
                     *(middle(summary(way["us"])) for way in ways),
                     *(middle(ratio(plain["us"], way["us"])) for way in others)])
    head = ["network", "kernels + products, plain", *WAYS[1:], *(f"µs, {way}" for way in WAYS),
            *(f"times less, {way}" for way in WAYS[1:])]
    text = TEXT.format(facts=facts(found["facts"]), cupy=cupy.__version__, rounds=args.rounds, table=table(head, rows))
    write_json(args.out / "gpu_host.json", found)
    (args.out / "gpu_host.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
