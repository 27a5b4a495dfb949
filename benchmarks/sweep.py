"""xpnet beside its peers on many models at once: microseconds per model and update.

    python benchmarks/environments.py --only xpnet,torch,jax          # once
    python benchmarks/sweep.py

The models differ in the penalty's factor, and see the same minibatches. Every implementation runs in a process of its
own for each number of models, and is timed only after its first 20 updates were found to be those of a float64
reference, for four of the models. Then all measure in turn, round by round. An update includes the gather. Writes
sweep.json and sweep.md in ``--out``, and a picture.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_job import NETWORKS, Job
from _cpu_run import Peer, Session, environment_python, load_data
from _cpu_tables import Goal, company, facts, machine, middle, ratio, summary, table
from _gpu_section import write_json
from environments import ROOT, default_place

ALONE = {"OPENBLAS_NUM_THREADS": "1"}
PEERS = (
    Peer("matrix products alone, wide", "xpnet", "_cpu_numpy:Products", limit=True),
    Peer("xpnet", "xpnet", "_cpu_xpnet:Xpnet"),
    Peer("xpnet, 2 workers", "xpnet", "_cpu_xpnet:Workers", extra=ALONE),
    Peer("pool of 2 NumPy processes", "xpnet", "_cpu_numpy:Pool", extra=ALONE),
    Peer("jax vmap in a scan", "jax", "_cpu_jax:Scan"),
    Peer("torch.func vmap, compiled", "torch", "_cpu_torch:Vmap", {"compiled": True}),
    Peer("torch.func vmap", "torch", "_cpu_torch:Vmap"),
    Peer("torch eager, one by one", "torch", "_cpu_torch:Eager"),
)
OWN = ("xpnet", "xpnet, 2 workers")
#: At 8 models: time over the wide matrix products at most, and times as fast as torch eager at least.
AIMED = {"H3+BN": (1.5, 3.7), "H9+BN": (1.6, 5.3)}
TEXT = """# Many models at once: xpnet beside its peers on a CPU

Made by `python benchmarks/sweep.py{options}`. {facts}

The networks and the job are those of `peers.py`, with batch norm; the models differ in l2 (1e-5 to 0.1) and
see the same batches of 100 {data} images. Microseconds per model and update, the gather included: medians of {rounds}
interleaved rounds.
{tables}

![Microseconds per model and update](../../docs/images/sweep_speed.png)

## Goals at 8 models

{goals}

- "xpnet" is one block, a `Trainer` whose model axis is l2; "xpnet, 2 workers" two blocks in two processes with one BLAS
  thread each, as `xpnet.sweep(..., workers=2)` trains them. The goals are judged by the faster.
- The pool is two processes with one BLAS thread each; they train half of the models each, one after the other, by the
  plain NumPy step of `peers.py`. Memory is that of the two, each with its images.
- A process of xpnet or NumPy holds the most when it reads the images, until some 16 models take more than that: so the
  memory of few models does not grow, and its distance from a line is mostly that.
- Under `torch.func.vmap` batch norm keeps no running statistics, which torch cannot do there: a little less work.
{notes}"""


def own(timed: dict[str, Any]) -> str | None:
    """Return the faster of xpnet's variants."""
    there = [name for name in OWN if timed.get(name, {}).get("rounds")]
    return min(there, key=lambda name: summary(timed[name]["rounds"])["median"], default=None)


def goals(networks: dict[str, dict[str, Any]]) -> list[Goal]:
    """Return the goals that the measurements reach or miss."""
    said = []
    for network, each in networks.items():
        timed = {name: r for name, r in each.get("8", {}).items() if r.get("rounds")}
        best = own(timed)
        if best is None:
            continue
        limit, eager = AIMED.get(network, (None, None))
        for name, at_least in (("jax vmap in a scan", 1.4), ("pool of 2 NumPy processes", 1.1),
                               ("torch eager, one by one", eager)):
            if name in timed and at_least:
                said.append(Goal(f"{network}: {best}, times as fast as {name}",
                                 ratio(timed[name]["rounds"], timed[best]["rounds"])["median"], at_least=at_least))
        if PEERS[0].name in timed and limit:
            said.insert(0 if not said else len(said), Goal(
                f"{network}: {best}, time over the wide matrix products",
                ratio(timed[best]["rounds"], timed[PEERS[0].name]["rounds"])["median"], limit))
        if each.get("64", {}).get(best, {}).get("rounds"):
            at = {m: summary(each[m][best]["rounds"])["median"] / int(m) for m in ("8", "64")}
            said.append(Goal(f"{network}: {best}, time per model at 64 models over that at 8", at["64"] / at["8"], 1.0))
        for name in OWN:
            memory = {int(m): r[name]["memory"] for m, r in each.items() if r.get(name, {}).get("memory")}
            if len(memory) > 3:
                said.append(Goal(f"{network}: {name}, peak memory's largest distance from a line over its growth",
                                 bend(memory), 0.1))
    return said


def bend(memory: dict[int, int]) -> float:
    """Return how far the memory lies from a line in the number of models, at worst, as a share of its growth."""
    models, held = np.array(list(memory), float), np.array(list(memory.values()), float)
    fitted = np.polyval(np.polyfit(models, held, 1), models)
    return float(abs(held - fitted).max() / max(np.ptp(held), 1.0))


def write(found: dict[str, Any], out: Path) -> None:
    """Write sweep.json and sweep.md."""
    write_json(out / "sweep.json", found)
    tables, failed = [], []
    for network, each in found["networks"].items():
        names = [p.name for p in PEERS if any(p.name in records for records in each.values())]
        for title, kind in ((f"{network}, µs per model", "rounds"), (f"{network}, peak memory in MB", "memory")):
            rows = []
            for name in names:
                cells = [_cell(records.get(name, {}), kind, int(m)) for m, records in each.items()]
                rows.append([name, *cells])
            tables.append(table([title, *each], rows))
        for m, records in each.items():
            for name, r in records.items():
                if not r["check"]["passed"]:
                    failed.append(f"- **{name} fails on {network} with {m} models** and was not timed: "
                                  f"{'; '.join(r['check']['wrong'][:3])}")
        parts = each.get("8", {}).get("xpnet", {}).get("parts")
        if parts:
            whole = summary(each["8"]["xpnet"]["rounds"])["median"]
            failed.append(f"- {network}, 8 models: xpnet's whole update takes {whole / 8:.0f} µs per model, one whose "
                          f"batch is there already {parts['update alone'] / 8:.0f}.")
    measured = (r for each in found["networks"].values() for records in each.values() for r in records.values())
    notes = [*failed, company(measured)]
    text = TEXT.format(
        options=found["options"], facts=facts(found["machine"]), data=found["data"], rounds=found["rounds"],
        tables="".join(f"\n{t}\n" for t in tables), notes="\n".join(notes),
        goals=table(["as ratios in this run", "goal", "measured", ""], [Goal(**g).line() for g in found["goals"]]),
    )
    (out / "sweep.md").write_text(text + "\n", encoding="utf-8")


def _cell(record: dict[str, Any], kind: str, models: int) -> str:
    if not record:
        return ""
    if kind == "memory":
        return f"{record['memory'] / 1e6:.0f}" if "memory" in record else ""
    return f"{summary(record['rounds'])['median'] / models:.0f}" if record.get("rounds") else "fails"


def picture(found: dict[str, Any], path: Path) -> None:
    """Draw the time per model against the number of models, a panel per network."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    networks = found["networks"]
    figure, axes = plt.subplots(1, len(networks), figsize=(5.5 * len(networks), 4.8), squeeze=False, sharey=True,
                                layout="constrained")
    for axis, (network, each) in zip(axes[0], networks.items(), strict=True):
        for k, peer in enumerate(PEERS):
            timed = {int(m): summary(r[peer.name]["rounds"]) for m, r in each.items()
                     if r.get(peer.name, {}).get("rounds")}
            if not timed:
                continue
            style = {"color": "black", "linestyle": "--"} if peer.limit else {"color": f"C{k}", "marker": "o"}
            axis.plot(list(timed), [t["median"] / m for m, t in timed.items()], label=peer.name, markersize=4,
                      linewidth=2 if peer.name in OWN else 1, **style)
        axis.set(title=network, xlabel="models", ylabel="µs per model and update", xscale="log", yscale="log")
        axis.set_xticks([int(m) for m in each], list(each))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=default_place(), help="where environments.py made them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement, about")
    parser.add_argument("--models", default="1,2,4,8,16,32,64")
    parser.add_argument("--networks", default="H3+BN,H9+BN")
    parser.add_argument("--only", help="implementations, by parts of their names, separated by commas")
    parser.add_argument("--data", help="a directory of CIFAR-10; synthetic images by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "sweep_speed.png")
    chosen = parser.parse_args(arguments)
    wanted = chosen.only.split(",") if chosen.only else [""]
    peers = [p for p in PEERS if any(part in p.name for part in wanted)]
    if not peers:
        parser.error(f"--only: expected parts of {', '.join(p.name for p in PEERS)}")
    if unknown := set(chosen.networks.split(",")) - set(NETWORKS):
        parser.error(f"--networks: expected {', '.join(NETWORKS)}, got {', '.join(sorted(unknown))}")
    data, _, _, name = load_data(chosen.data)
    shown = [f" --{n} {getattr(chosen, n)}" for n in ("only", "networks", "models")
             if getattr(chosen, n) != parser.get_default(n)]
    found: dict[str, Any] = {
        "options": "".join(shown) + " --data DIR" * bool(chosen.data), "data": name, "rounds": chosen.rounds,
        "machine": machine(chosen.envs, dict.fromkeys(p.group for p in peers)), "networks": {},
    }
    with Session(data, environment_python(chosen.envs)) as session:
        for network in chosen.networks.split(","):
            found["networks"][network] = {}
            for models in map(int, chosen.models.split(",")):
                l2 = tuple(float(value) for value in np.geomspace(1e-5, 1e-1, models))
                job = Job(*NETWORKS[network], l2=l2, chunk=50)
                records = session.measure(peers, job, chosen.rounds, 450, chosen.seconds, ["parts"])
                found["networks"][network][str(models)] = records
                for peer, record in records.items():
                    spent = [us / models for us in record.get("rounds", ())]
                    shown_time = middle(summary(spent)) if spent else "fails"
                    print(f"{network}, {models} models, {peer}: {shown_time}", flush=True)
    found["goals"] = [dataclasses.asdict(goal) for goal in goals(found["networks"])]
    write(found, chosen.out)
    picture(found, chosen.picture)
    print(f"wrote {chosen.out / 'sweep.json'}, {chosen.out / 'sweep.md'} and {chosen.picture}")


if __name__ == "__main__":
    main()
