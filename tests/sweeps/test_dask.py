"""Sweeps on a Dask cluster of real processes: killed workers, a killed coordinator, data that travel once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _sweep_job
import pytest
from conftest import optional
from test_workers import JOB, blocks, same_files, wait_for

distributed = optional("dask")
pytestmark = [
    pytest.mark.backends("numpy"), pytest.mark.slow,
    # Dask's own, when its workers are killed as they are here.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning",
                               "ignore::UserWarning:distributed", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    _sweep_job.run(str(folder))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


def test_blocks_train_on_a_cluster_and_a_killed_worker_is_replaced(
    undisturbed: Path, tmp_path: Path, cluster: Any
) -> None:
    killed = []
    with distributed.Client(cluster) as client:
        pids = client.run(os.getpid)

        def kill() -> None:
            wait_for(lambda: blocks(tmp_path) >= 1)
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        _sweep_job.run(str(tmp_path), executor=client)
        thread.join()
    assert len(killed) == 1
    same_files(undisturbed, tmp_path)


def test_a_killed_coordinator_goes_on(undisturbed: Path, tmp_path: Path, cluster: Any) -> None:
    command = [sys.executable, str(JOB), str(tmp_path), "1", cluster.scheduler_address]
    coordinator = subprocess.Popen(command)
    wait_for(lambda: blocks(tmp_path) >= 2)
    coordinator.kill()
    coordinator.wait(60)
    assert 2 <= blocks(tmp_path) < 6
    assert not (tmp_path / "table.json").exists()
    subprocess.run(command, check=True, timeout=120)
    assert blocks(tmp_path) == 6
    same_files(undisturbed, tmp_path)


def test_the_command_line_takes_a_scheduler(tmp_path: Path, cluster: Any) -> None:
    options = "sweep --data synthetic --images 500 --hidden 5 --seed 0:3 --block-size 1 --steps 10".split()
    command = [sys.executable, "-m", "xpnet", *options, "--dask", cluster.scheduler_address, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "ensemble of 3" in done.stdout
    assert blocks(tmp_path) == 3
