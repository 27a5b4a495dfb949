"""The process in which one implementation runs: it reads what to do from its input, a line of JSON at a time.

    python _cpu_worker.py MODULE:CLASS '{"option": ...}'

What it answers is a line of JSON too; anything that a library prints goes to the error output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any, Protocol

import numpy as np
from _cpu_job import Data, Job, memory


class Implementation(Protocol):
    """What trains: it has updates, and ``losses`` and ``arrays`` (see ``_cpu_job``) unless it is the limit.

    ``cost`` tells whether its losses include the penalty, and ``constant`` (False by default) that the rate of a run is
    that of its middle. It may have ``memory()``, where the process that runs it is not the one whose memory counts,
    and more to tell (``evaluation()``, ``parts()``).
    """

    cost: bool

    def run(self, steps: int) -> tuple[int, float]:
        """Make at least so many updates; give how many, and the seconds that they took."""
        ...

    def losses(self) -> np.ndarray | None:
        """Return the losses of the last run, (steps, *models), or one that is their mean."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays as NumPy's."""
        ...


def save(path: str, peer: Implementation) -> None:
    """Write an implementation's arrays, and its last losses."""
    losses = peer.losses()
    found = {} if losses is None else {"losses": losses}
    np.savez(path, **found, **peer.arrays())


class Worker:
    """Holds the implementation between two requests."""

    def __init__(self, make: Any, options: dict[str, Any]) -> None:
        self.make, self.options = make, options

    def start(self, job: dict[str, Any], place: str, steps: int, out: str) -> dict[str, Any]:
        """Read the data, build, and make the first updates: the seconds of building and first updates together."""
        data = Data.load(place)
        began = time.perf_counter()
        self.peer = self.make(Job.of(job), data, **self.options)
        self.peer.run(steps)
        seconds = time.perf_counter() - began
        has = hasattr(self.peer, "arrays")
        if has:
            save(out, self.peer)
        facts = {name: getattr(self.peer, name, False) for name in ("cost", "constant")}
        return {"seconds": seconds, "arrays": has} | facts

    def time(self, warm: int, steps: int) -> dict[str, Any]:
        """Warm up, and take the time of so many updates."""
        self.peer.run(warm)
        made, seconds = self.peer.run(steps)
        return {"us": 1e6 * seconds / made, "steps": made}

    def train(self, steps: int, out: str) -> dict[str, Any]:
        """Make updates, and write the arrays."""
        self.peer.run(steps)
        save(out, self.peer)
        return {}

    def tell(self, what: str) -> dict[str, Any]:
        """Return what an implementation knows of itself, if it does; of every one, the most bytes held so far."""
        if hasattr(self.peer, what):
            return {what: getattr(self.peer, what)()}
        return {"memory": memory()} if what == "memory" else {}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing but answers on the output
    module, _, name = sys.argv[1].partition(":")
    worker: Worker | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if worker is None:
                worker = Worker(getattr(importlib.import_module(module), name), json.loads(sys.argv[2]))
            answer = getattr(worker, asked.pop("do"))(**asked)
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
