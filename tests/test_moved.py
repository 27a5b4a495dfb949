"""What xpnet 0.1 left behind: its modules' names, and files that hold them."""

from __future__ import annotations

import importlib
import pickle
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same
from numpy.testing import assert_allclose

import xpnet
from xpnet import Network, Trainer
from xpnet._moved import APART, MOVED
from xpnet.sweeps import blocks

pytestmark = pytest.mark.backends("numpy")
HERE = Path(__file__).parent / "data_0_1"
EXPECTED = np.load(HERE / "expected.npz")
X, Y = EXPECTED["x"], EXPECTED["y"]

# Modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_offers_the_names_of_the_new_one_and_says_so(old: str) -> None:
    module, new = importlib.import_module(f"xpnet.{old}"), importlib.import_module(f"xpnet.{MOVED[old]}")
    with pytest.warns(DeprecationWarning, match=f"^xpnet.{old}.__all__ is xpnet.{MOVED[old]}.__all__ now; the old "):
        names = module.__all__
    for name in names:
        with pytest.warns(DeprecationWarning, match=f"^xpnet.{old}.{name} is xpnet.") as caught:
            assert getattr(module, name) is getattr(new, name)
        assert caught[0].filename == __file__


@pytest.mark.parametrize(("old", "name"), APART)
def test_names_that_went_elsewhere_are_found(old: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"^xpnet.{old}.{name} is xpnet.{'.'.join(APART[old, name])} now"):
        assert callable(getattr(importlib.import_module(f"xpnet.{old}"), name))


def test_the_ways_to_import_an_old_module() -> None:
    code = ("import xpnet, xpnet.layers, xpnet.sweep\nfrom xpnet import losses, optimizers as o\n"
            "from xpnet.schedules import *\nfrom xpnet.training import Trainer\n"
            "assert xpnet.layers.Linear is xpnet.Linear and losses.softmax and o.SGD is xpnet.SGD is not None\n"
            "assert CyclicLR is xpnet.CyclicLR and Trainer is xpnet.Trainer\n"
            "assert callable(xpnet.sweep) and xpnet.sweep.__module__ == 'xpnet.sweeps.sweep'\n"
            "try: from xpnet.layers import Convolution\nexcept ImportError: pass\nelse: raise SystemExit('found')\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<string>:5: DeprecationWarning: xpnet.layers.Linear is xpnet.Linear now" in done.stderr
    assert "<string>:5: DeprecationWarning: xpnet.losses.softmax is xpnet.nn.losses.softmax now" in done.stderr


# Files ------------------------------------------------------------------------------------------------------------


def unpickled(name: str) -> Any:
    """Load one of our own pickles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pickle.loads((HERE / f"{name}.pickle").read_bytes())  # noqa: S301  # written by write.py


def test_a_pickle_names_old_modules() -> None:
    with pytest.warns(DeprecationWarning, match=r"^xpnet\.\w+\.\w+ is xpnet\.\w+ now"):
        pickle.loads((HERE / "layers.pickle").read_bytes())  # noqa: S301


@pytest.mark.parametrize("way", [
    lambda: unpickled("network"), lambda: Network.load(HERE / "network.safetensors"),
    lambda: Network.from_npz(HERE / "network.npz"), lambda: unpickled("trainer").network,
    lambda: Network(unpickled("layers"), unpickled("network").arrays),
], ids=["pickle", "safetensors", "npz", "trainer", "layers"])
def test_a_network_predicts_what_it_did(way: Any) -> None:
    assert_allclose(way()(X), EXPECTED["logits"], rtol=1e-4, atol=1e-6)


def test_estimators_predict_what_they_did() -> None:
    assert (unpickled("classifier").predict(X) == EXPECTED["classes"]).all()
    assert unpickled("search").best_params_["l2"] in (0.0, 0.1)
    assert (unpickled("split").y == Y[:2]).all()


def test_a_sweep_is_what_it_was() -> None:
    found = unpickled("sweep")
    assert_allclose(found.network()(X), EXPECTED["best"], rtol=1e-4, atol=1e-6)
    assert [point["l2"] for point in found.points] == [0.0, 0.1]
    assert unpickled("device") == found.network().device == xpnet.Device()


@pytest.mark.filterwarnings("ignore::xpnet.training.checkpoints.ResumeWarning")  # of other versions and machines
def test_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.training.snapshot.__version__", "0.1.0")
    run, pickled = Path(shutil.copytree(HERE / "run", tmp_path / "run")), unpickled("trainer")
    again: Trainer = runpy.run_path(str(HERE / "write.py"))["make"]()
    again.resume(run)
    for trainer in (again, pickled):
        trainer.fit(X, Y, steps=12, validation=(X, Y), evaluate_every=10)
    assert again.step == pickled.step == 12
    assert_same(again.state(), pickled.state())
    assert again.history.rows[1]["lr"] == unpickled("history").rows[1]["lr"] == EXPECTED["rate"][1]


def test_a_sweep_in_a_directory_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.sweeps.plan.__version__", "0.1.0")
    monkeypatch.setattr(blocks, "run", None)
    directory = shutil.copytree(HERE / "sweep", tmp_path / "sweep")
    make = runpy.run_path(str(HERE / "write.py"))["make"]
    found = xpnet.sweep(make, {"l2": [0.0, 0.1]}, X, Y, validation=(X, Y), steps=4, evaluate_every=2,
                        directory=directory)
    assert_allclose(found.network()(X), EXPECTED["best"], rtol=1e-4, atol=1e-6)
