"""xpnet beside its peers, on one network at a time: speed, start, memory, size, accuracy.

    python benchmarks/environments.py          # once
    python benchmarks/peers.py [--accuracy] [--data DIR]

Every implementation runs in a process and an environment of its own, starts from the same weights, sees the same
batches, and is timed only after its first 20 updates were found to be those of a float64 reference. Then all measure
in turn, round by round, while the others wait. An update is everything from one to the next: the gather, the
standardisation, the rate, the loss. Writes peers.json and peers.md in ``--out``, and a picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_job import NETWORKS, Job, accuracy
from _cpu_run import Peer, Session, Worker, WorkerError, clean, environment_python, load_data
from _cpu_tables import Goal, company, facts, machine, middle, ratio, summary, table
from _gpu_section import write_json
from environments import GROUPS, ROOT, default_place, described, interpreter

COMPILED = "xpnet with Numba"
PEERS = (
    Peer("matrix products alone", "xpnet", "_cpu_numpy:Products", limit=True),
    Peer("xpnet", "xpnet", "_cpu_xpnet:Xpnet", library="xpnet"),
    Peer(COMPILED, "xpnet-fast", "_cpu_xpnet:Xpnet", library="xpnet"),
    Peer("plain NumPy", "xpnet", "_cpu_numpy:Plain", library="NumPy"),
    Peer("torch.compile, whole update", "torch", "_cpu_torch:Compiled", library="torch"),
    Peer("torch.compile, loss; fused SGD", "torch", "_cpu_torch:Eager", {"compiled": True, "fused": True},
         library="torch"),
    Peer("torch eager", "torch", "_cpu_torch:Eager", library="torch"),
    Peer("torch eager, fused SGD", "torch", "_cpu_torch:Eager", {"fused": True}, library="torch"),
    Peer("jax scan", "jax", "_cpu_jax:Scan", library="jax"),
    Peer("equinox + optax", "jax", "_cpu_jax:Equinox", library="equinox"),
    Peer("Keras on jax", "keras", "_cpu_others:Keras", extra={"KERAS_BACKEND": "jax"}, library="Keras"),
    Peer("Thinc", "thinc", "_cpu_others:Thinc", library="Thinc"),
    Peer("scikit-learn, partial_fit", "scikit-learn", "_cpu_others:ScikitLearn", batch_norm=False,
         library="scikit-learn"),
    Peer("scikit-learn, fit", "scikit-learn", "_cpu_others:ScikitLearnFit", batch_norm=False, library="scikit-learn"),
)
#: What a user of each library imports.
IMPORTS = {"xpnet": "import xpnet", "NumPy": "import numpy", "torch": "import torch", "jax": "import jax",
           "equinox": "import equinox, optax", "Keras": "import keras", "Thinc": "import thinc.api",
           "scikit-learn": "from sklearn.neural_network import MLPClassifier"}
TEXT = """# One network: xpnet beside its peers on a CPU

Made by `python benchmarks/peers.py{options}`. {facts}

The job: 3072 inputs, hidden layers of 50, 50 (H3) or 50, 30, 20, 20, 10, 10, 10, 10 (H9), with batch norm (BN) or
without, 10 outputs; batches of 100 from 45,000 uint8 images ({data}), reshuffled for every epoch; float32, SGD,
l2 = 0.005, a cyclical rate. Each was checked against a float64 reference before it was timed.

Microseconds per update, everything between two updates included: medians of {rounds} interleaved rounds of {steps}
updates, and quartiles.

{times}

As multiples of the matrix products alone (medians over the rounds):

{ratios}

![Microseconds per update](../../docs/images/peers.png)

Start, memory and size. *First updates*: from data in memory to the end of the first 20 updates, compiling included.
*Memory*: the most that the process held, {images:.0f} MB of images included. *Installed*: the library and all that it
requires. The first two are of {first}.

{costs}

## Goals

{goals}

{evaluation}
{notes}"""
NOTES = """
- xpnet is timed inside `Trainer.fit`, from before its first update to after its last; the evaluation of one image after
  the last is in the time.
- "torch.compile, whole update" compiles gather, gradients and SGD into one function; the other compiles the gather,
  the network and the loss, and takes torch's fused SGD.
- Keras runs `Model.fit` with 5 updates per call of the compiled function. It and JAX compile with XLA.
- "scikit-learn, fit" does less than the others: a constant rate per epoch, and images standardised beforehand.
- Thinc's batch norm is written for this benchmark in NumPy, as it has none.
"""


def import_times(libraries: dict[str, str], envs: Path, rounds: int = 7) -> dict[str, dict[str, float]]:
    """Return the seconds that importing each library (by name, with its group) takes, in fresh processes in turn."""
    found: dict[str, list[float]] = {name: [] for name in libraries}
    for turn in range(rounds + 1):
        for name, group in libraries.items():
            code = f"import time; began = time.perf_counter()\n{IMPORTS[name]}\nprint(time.perf_counter() - began)"
            # From the checkout, so that it is its xpnet.
            done = subprocess.run([interpreter(envs / group), "-c", code], cwd=ROOT, check=True, text=True,
                                  env=clean({"KERAS_BACKEND": "jax"}), capture_output=True)
            if turn:  # the first reads the disk
                found[name].append(float(done.stdout.split()[-1]))
    return {name: summary(seconds) for name, seconds in found.items()}


def final_accuracy(session: Session, peer: Peer, hidden: Sequence[int], batch_norm: bool,
                   test: tuple[np.ndarray, np.ndarray], steps: int = 9000) -> float:
    """Return the test accuracy after two cycles of the report's rate, evaluated by the same code for everyone."""
    job = Job(tuple(hidden), batch_norm, lowest=1e-5, highest=1e-1, half=steps // 4)
    worker, out = Worker(peer, session.python(peer.group), session.place / "accuracy.log"), session.place / "final.npz"
    try:
        worker.ask("start", job=dataclasses.asdict(job), place=str(session.place), steps=20, out=str(out))
        worker.ask("train", steps=steps - 20, out=str(out))
        with np.load(out) as arrays:
            return accuracy(dict(arrays), session.data, *test)
    finally:
        worker.close()
        out.unlink(missing_ok=True)


def goals(found: dict[str, Any]) -> list[Goal]:
    """Return the goals that the measurements reach or miss."""
    said = []
    for name, network, limit, ahead in (("xpnet", "H3+BN", 1.6, 1.6), ("xpnet", "H9+BN", 2.0, 1.4),
                                        (COMPILED, "H3+BN", 1.6, 1.3), (COMPILED, "H9+BN", 1.8, 1.5)):
        title = network if name == "xpnet" else f"{network}, {name}"
        timed = {name: r["rounds"] for name, r in found["networks"].get(network, {}).items() if r.get("rounds")}
        own = timed.get(name)
        timed = {other: rounds for other, rounds in timed.items() if other not in ("xpnet", COMPILED)}
        products = timed.pop("matrix products alone", None)
        if own and products:
            said.append(Goal(f"{title}: time over the matrix products alone", ratio(own, products)["median"], limit))
        if own and timed:
            best = min(timed, key=lambda name: statistics.median(timed[name]))
            said.append(Goal(f"{title}: times as fast as the fastest peer ({best})",
                             ratio(timed[best], own)["median"], at_least=ahead))
        if own and "torch eager" in timed:
            said.append(Goal(f"{title}: times as fast as torch eager", ratio(timed["torch eager"], own)["median"],
                             at_least=2.3))
    imports = {name: seconds["median"] for name, seconds in found["imports"].items()}
    for name, goal in (("torch", 5.0), ("jax", 3.0)):
        if {name, "xpnet"} <= set(imports):
            said.append(Goal(f"import: times as fast as import {name}", imports[name] / imports["xpnet"],
                             at_least=goal))
    sizes = found["sizes"]
    if {"torch", "xpnet without matplotlib"} <= set(sizes):
        said.append(Goal("installed size without matplotlib over torch's",
                         sizes["xpnet without matplotlib"]["bytes"] / sizes["torch"]["bytes"], 0.1))
    for network, records in found["networks"].items():
        spent = records.get("xpnet", {}).get("evaluation")
        if spent:
            epoch = 1e-6 * 450 * summary(records["xpnet"]["rounds"])["median"]
            said.append(Goal(f"{network}: evaluating 45,000 images over training an epoch", spent / epoch, 0.6))
    return said


def write(found: dict[str, Any], out: Path) -> None:
    """Write peers.json and peers.md."""
    write_json(out / "peers.json", found)
    networks, names = found["networks"], [p.name for p in PEERS]
    timed = {n: {name: r["rounds"] for name, r in each.items() if r.get("rounds")} for n, each in networks.items()}
    rows, multiples, costs = [], [], []
    first = next(iter(networks))
    for name in names:
        records = [each.get(name) for each in networks.values()]
        if not any(records):
            continue
        cells = ["" if r is None else middle(summary(r["rounds"])) if r.get("rounds") else "fails" for r in records]
        rows.append([name, *cells])
        over = [f"{ratio(timed[n][name], timed[n]['matrix products alone'])['median']:.2f}"
                if name in timed[n] and "matrix products alone" in timed[n] else "" for n in networks]
        multiples.append([name, *over])
        costs.append([name, *_costs(found, name, next(filter(None, records)))])
    failed = [f"- **{name} fails on {n}** and was not timed: {'; '.join(r['check']['wrong'][:3])}"
              for n, each in networks.items() for name, r in each.items() if not r["check"]["passed"]]
    every = [record for each in networks.values() for record in each.values()]
    evaluation = "" if "accuracy" not in found else (
        f"*Accuracy*: on {found['test']:,} test images after 9000 updates, two cycles of a rate from 1e-5 to 0.1.\n")
    text = TEXT.format(
        options=found["options"], facts=facts(found["machine"]), data=found["data"], rounds=found["rounds"],
        steps=found["steps"], times=table(["µs per update", *networks], rows), images=45_000 * 3072 / 1e6,
        ratios=table(["times the products", *networks], multiples), first=first,
        costs=table(["", "first updates, s", "memory, MB", "import, s", "installed, MB",
                     *([f"accuracy {n}, %" for n in networks] if "accuracy" in found else [])], costs),
        goals=table(["as ratios in this run", "goal", "measured", ""], [Goal(**g).line() for g in found["goals"]]),
        evaluation=evaluation, notes="\n".join([*failed, NOTES.strip(), company(every)]),
    )
    (out / "peers.md").write_text(text + "\n", encoding="utf-8")


def _costs(found: dict[str, Any], name: str, record: dict[str, Any]) -> list[str]:
    """Return the cells of an implementation's start, memory, import, size and accuracy."""
    library = next(p.library for p in PEERS if p.name == name)
    seconds, size = found["imports"].get(library), found["sizes"].get(library)
    spared = found["sizes"].get(f"{library} without matplotlib")
    cells = [f"{record['first_seconds']:.1f}" if "first_seconds" in record else "",
             f"{record['memory'] / 1e6:.0f}" if "memory" in record else "",
             middle(seconds, 2) if seconds else "",
             (f"{size['bytes'] / 1e6:.0f}" + (f" ({spared['bytes'] / 1e6:.0f} without matplotlib)" if spared else ""))
             if size else ""]
    if "accuracy" in found:
        scores = [found["accuracy"][n].get(name) for n in found["networks"]]
        cells += ["" if score is None else f"{100 * score:.1f}" for score in scores]
    return cells


def picture(found: dict[str, Any], path: Path) -> None:
    """Draw the times as bars, a panel per network, with the matrix products alone as a line."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    networks = found["networks"]
    down = (len(networks) + 1) // 2
    figure, axes = plt.subplots(down, min(2, len(networks)), figsize=(12, 4.4 * down), squeeze=False,
                                layout="constrained")
    for axis in axes.flat[len(networks) :]:
        axis.set_axis_off()
    for axis, (network, records) in zip(axes.flat, networks.items(), strict=False):
        timed = {name: summary(r["rounds"]) for name, r in records.items() if r.get("rounds")}
        limit = timed.pop("matrix products alone", None)
        names = sorted(timed, key=lambda name: timed[name]["median"], reverse=True)
        heights = [timed[name]["median"] for name in names]
        spread = [[abs(timed[n][end] - timed[n]["median"]) for n in names] for end in ("low", "high")]
        axis.barh(names, heights, xerr=spread, color=["C1" if n.startswith("xpnet") else "C0" for n in names],
                  error_kw={"linewidth": 0.8})
        if limit:
            axis.axvline(limit["median"], color="black", linestyle="--", linewidth=1, label="matrix products alone")
            axis.legend(loc="upper right", fontsize="small")
        axis.set(title=network, xlabel="µs per update")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=default_place(), help="where environments.py made them")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=450, help="updates per measurement; 450 are an epoch")
    parser.add_argument("--only", help="implementations, by parts of their names, separated by commas")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--data", help="a directory of CIFAR-10; synthetic images by default")
    parser.add_argument("--accuracy", action="store_true", help="train 9000 updates too, and evaluate")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "peers.png")
    chosen = parser.parse_args(arguments)
    wanted = chosen.only.split(",") if chosen.only else [""]
    peers = [p for p in PEERS if any(part in p.name for part in wanted)]
    if not peers:
        parser.error(f"--only: expected parts of {', '.join(p.name for p in PEERS)}")
    if unknown := set(chosen.networks.split(",")) - set(NETWORKS):
        parser.error(f"--networks: expected {', '.join(NETWORKS)}, got {', '.join(sorted(unknown))}")
    groups = list(dict.fromkeys(p.group for p in peers))
    libraries = {name: g for g in groups for name in GROUPS[g][1] if any(p.library == name for p in peers)}
    shown = "".join(f" --{n} {getattr(chosen, n)}" for n in ("only", "networks")
                    if getattr(chosen, n) != parser.get_default(n))
    found: dict[str, Any] = {
        "options": shown + " --accuracy" * chosen.accuracy + " --data DIR" * bool(chosen.data),
        "machine": machine(chosen.envs, groups), "rounds": chosen.rounds, "steps": chosen.steps, "networks": {},
        "sizes": {name: size for g in groups for name, size in described(chosen.envs, g)["sizes"].items()},
    }
    data, *test, found["data"] = load_data(chosen.data)
    with Session(data, environment_python(chosen.envs)) as session:
        for network in chosen.networks.split(","):
            hidden, batch_norm = NETWORKS[network]
            print(f"{network}: checking", flush=True)
            able = [p for p in peers if p.batch_norm or not batch_norm]
            records = session.measure(able, Job(hidden, batch_norm), chosen.rounds, chosen.steps,
                                      further=["evaluation"])
            found["networks"][network] = records
            for name, record in records.items():
                print(f"  {name}: {middle(summary(record['rounds'])) if record.get('rounds') else 'fails'}", flush=True)
        if chosen.accuracy:
            found["accuracy"], found["test"] = {n: {} for n in found["networks"]}, len(test[0])
            for network, records in found["networks"].items():
                for peer in peers:
                    if records.get(peer.name, {}).get("check", {}).get("passed") and not peer.limit:
                        try:
                            score = final_accuracy(session, peer, *NETWORKS[network], (test[0], test[1]))
                        except WorkerError as error:
                            print(f"  {network}, {peer.name}: no accuracy: {error}", flush=True)
                            continue
                        found["accuracy"][network][peer.name] = score
                        print(f"  {network}, {peer.name}: accuracy {score:.1%}", flush=True)
    found["imports"] = import_times(libraries, chosen.envs)
    found["goals"] = [dataclasses.asdict(goal) for goal in goals(found)]
    write(found, chosen.out)
    picture(found, chosen.picture)
    print(f"wrote {chosen.out / 'peers.json'}, {chosen.out / 'peers.md'} and {chosen.picture}")


if __name__ == "__main__":
    main()
