"""The whole report by xpnet, beside the updates of the same networks in torch eager.

    python benchmarks/environments.py --only xpnet,torch       # once
    python benchmarks/whole_report.py [--data DIR]

Runs ``examples/reproduce_report.py`` and counts the updates of each network in it, a model of a sweep as one. Then
times torch's update of each network, in the faster of two ways, checked as in peers.py. Torch's time is that of its
updates alone; xpnet's is the whole command, with data, evaluations and figures. Writes whole_report.json and
whole_report.md in ``--out``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from _cpu_job import NETWORKS, Job
from _cpu_run import Peer, Session, clean, environment_python, load_data
from _cpu_tables import Goal, company, facts, machine, summary, table
from _gpu_section import write_json
from environments import ROOT, default_place, interpreter

TORCH = (
    Peer("torch eager", "torch", "_cpu_torch:Eager", library="torch"),
    Peer("torch eager, fused SGD", "torch", "_cpu_torch:Eager", {"fused": True}, library="torch"),
)
#: Runs the reproduction and counts updates per network.
COUNTING = """
import json, sys, threading
root, counts, *options = sys.argv[1:]
sys.path[:0] = [root, root + "/examples"]
import reproduce_report  # first: it chooses how many threads BLAS uses, before NumPy is there
import xpnet
found, lock, update = {}, threading.Lock(), xpnet.Trainer.update
def counted(self, *arguments, **named):
    layers = self.architecture.layers
    widths = [layer.out_width for layer in layers if isinstance(layer, xpnet.Linear)][:-1]
    key = json.dumps([widths, any(isinstance(layer, xpnet.BatchNorm) for layer in layers)])
    with lock:
        found[key] = found.get(key, 0) + (self.models or (1,))[0]
    return update(self, *arguments, **named)
xpnet.Trainer.update = counted
sys.argv = ["reproduce_report.py", *options]
code = reproduce_report.main()
json.dump(found, open(counts, "w"))
sys.exit(code)
"""
TEXT = """# The whole report: xpnet beside torch eager

Made by `python benchmarks/whole_report.py{options}`. {facts}

`examples/reproduce_report.py` took **{seconds:.0f} s** ({data}), data, evaluations and figures included. The updates of
the same networks, one by one in torch eager (the faster of SGD and fused SGD), take **{torch:.0f} s**, and nothing else
is in that time.

{rows}

{goals}

{company}
"""


def reproduce(python: Path, data: str | None, room: Path) -> tuple[float, dict[str, int]]:
    """Return the seconds that the reproduction takes, and the updates of each network by its name in ``NETWORKS``."""
    counts, options = room / "counts.json", ["--out", str(room / "report"), "--data", data or "synthetic"]
    began = time.perf_counter()
    subprocess.run([python, "-c", COUNTING, str(ROOT), str(counts), *options], check=True, env=clean(), cwd=room,
                   stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    names = {(hidden, norm): name for name, (hidden, norm) in NETWORKS.items()}
    found = {tuple(map(_frozen, json.loads(key))): n for key, n in json.loads(counts.read_text("utf-8")).items()}
    return seconds, {names[network]: n for network, n in found.items()}  # type: ignore[index]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=default_place(), help="where environments.py made them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", help="a directory of CIFAR-10; synthetic images by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    chosen = parser.parse_args(arguments)
    data, _, _, name = load_data(chosen.data)
    noted = machine(chosen.envs, ("xpnet", "torch"))
    with tempfile.TemporaryDirectory() as room:
        seconds, counts = reproduce(interpreter(chosen.envs / "xpnet"), chosen.data, Path(room))
    print(f"the report took {seconds:.0f} s", flush=True)
    networks, rows = {}, []
    with Session(data, environment_python(chosen.envs)) as session:
        for network, updates in counts.items():
            records = session.measure(TORCH, Job(*NETWORKS[network]), chosen.rounds, chosen.steps)
            timed = {peer: summary(r["rounds"])["median"] for peer, r in records.items() if r.get("rounds")}
            best = min(timed, key=lambda peer: timed[peer])
            networks[network] = {"updates": updates, "us": timed[best], "records": records}
            rows.append([network, f"{updates:,}", best, f"{timed[best]:.0f}", f"{updates * timed[best] / 1e6:.0f}"])
            print(*rows[-1], flush=True)
    torch = sum(each["updates"] * each["us"] for each in networks.values()) / 1e6
    goal = Goal("the whole report: times as fast as its updates in torch eager", torch / seconds, at_least=4.0)
    found = {"machine": noted, "data": name, "seconds": seconds, "torch_seconds": torch, "networks": networks,
             "goals": [dataclasses.asdict(goal)]}
    write_json(chosen.out / "whole_report.json", found)
    records = [record for each in networks.values() for record in each["records"].values()]
    (chosen.out / "whole_report.md").write_text(TEXT.format(
        options=" --data DIR" * bool(chosen.data), facts=facts(noted), seconds=seconds, data=name, torch=torch,
        rows=table(["network", "updates", "torch's way", "µs per update", "s"], rows),
        goals=table(["as a ratio in this run", "goal", "measured", ""], [goal.line()]), company=company(records),
    ), encoding="utf-8")
    print(f"wrote {chosen.out / 'whole_report.json'} and {chosen.out / 'whole_report.md'}")


if __name__ == "__main__":
    main()
