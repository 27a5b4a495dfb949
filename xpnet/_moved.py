"""The modules of 0.1 by their old names, for one release: what is taken of them comes with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "keep"]

#: Old module -> new one. The packages that took over a module's name offer its names themselves.
MOVED = {
    "_candidates": "estimators.candidates", "_epochs": "estimators.epochs", "_mlp": "estimators.base",
    "_sklearn": "estimators.conventions", "batches": "training.batches", "blocks": "sweeps.blocks",
    "buffers": "nn.parameters", "callbacks": "training.callbacks", "checkpoint": "nn.formats.safetensors",
    "cli_config": "cli.config", "cli_options": "cli.options", "cli_predict": "cli.predict", "cli_sweep": "cli.sweep",
    "cli_train": "cli.train", "convert": "nn.formats.convert", "divergence": "training.divergence",
    "ensemble": "nn.ensemble", "executors": "sweeps.workers", "gradcheck": "nn.gradcheck",
    "halves": "training.two_threads", "history": "training.history", "hyper": "nn.per_model",
    "initializers": "nn.initializers", "inputs": "datasets.inputs", "interrupts": "training.interrupts",
    "kept": "training.run_directory", "layers": "nn.layers", "learner": "training.step", "locks": "files.locks",
    "losses": "nn.losses", "network": "nn.network", "onnx_export": "nn.formats.onnx",
    "optimizers": "training.optimizers", "plan": "sweeps.plan", "plotting_pictures": "plotting.pictures",
    "plotting_training": "plotting.training", "range_test": "training.lr_range", "refine": "sweeps.refine",
    "results": "sweeps.results", "rows": "training.rows", "run_report": "report.run", "runs": "training.checkpoints",
    "schedules": "training.schedules", "search": "estimators.grid_search", "sequential": "nn.sequential",
    "snapshot": "training.snapshot", "space": "sweeps.space", "storage": "files.storage", "store": "sweeps.store",
    "summary": "nn.summary", "sweep": "sweeps.sweep", "sweep_files": "sweeps.export",
}
#: Names that are elsewhere than the rest of their module.
APART = {
    ("checkpoint", "load_network"): ("nn.network", "Network.load"),
    ("convert", "from_torch"): ("nn.network", "Network.from_torch"),
    ("convert", "load_npz"): ("nn.network", "Network.from_npz"),
    ("history", "text_table"): ("nn.summary", "text_table"),
    ("network", "check_features"): ("nn.examples", "check_features"),
    ("network", "to_float"): ("nn.examples", "to_float"),
    ("rows", "blocks"): ("nn.network", "blocks"),
}


class _Moved(ModuleType):
    """An old module, of which every name is looked up in the new one."""

    def __getattr__(self, name: str) -> Any:
        old = self.__name__.removeprefix("xpnet.")
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, path = APART.get((old, name), (MOVED[old], name))
        found: Any = importlib.import_module(f"xpnet.{module}")
        for part in path.split("."):
            found = getattr(found, part)
        where = name if name in sys.modules["xpnet"].__all__ else f"{module}.{path}"
        warnings.warn(f"{self.__name__}.{name} is xpnet.{where} now; the old module goes with the next release",
                      DeprecationWarning, stacklevel=2)
        return found


def keep() -> None:
    """Let old names be imported, as modules and as attributes of the package."""
    package = vars(sys.modules["xpnet"])
    for old in MOVED:
        sys.modules[f"xpnet.{old}"] = module = _Moved(f"xpnet.{old}", f"Now xpnet.{MOVED[old]}.")
        package.setdefault(old, module)  # xpnet.sweep is the function
