"""What tox cannot know by itself: which backends and which browser this machine can have.

PyTorch is wanted as its CPU build, which the public index does not carry for Linux, CuPy runs on the emulation in
``tests/cpucuda`` if there is no GPU, and the tests of the page need Chromium.
What cannot be had is left out with the reason and the remedy, unless ``XPNET_REQUIRE`` names it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from tox.execute.request import StdinSource
from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.errors import Fail, Skip

# Elsewhere than on Linux the public index's build is the one without CUDA.
TORCH = "torch==2.13.0+cpu" if sys.platform == "linux" else "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
#: What the tests of the page run, and the packages of Debian that have it.
BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}
PROBE = "from xpnet import Device; Device.backend('cupy')"
TESTS = Path(__file__).parent / "tests"


def last_words(tox_env: ToxEnv, *command: str) -> str:
    """Run Python in the environment and give the last line of its complaint, or nothing where it succeeds."""
    outcome = tox_env.execute(["python", *command], StdinSource.OFF, show=False, run_id="probe")
    return "" if outcome.exit_code == 0 else (outcome.err.strip().splitlines() or ["no message"])[-1]


@impl
def tox_before_run_commands(tox_env: ToxEnv) -> None:
    """Install PyTorch, look for Chromium and try the GPU, where the environment is about them."""
    factors = tox_env.conf.name.split("-")
    required = os.environ.get("XPNET_REQUIRE", "").split(",")
    if "torch" in factors and (why := last_words(tox_env, "-m", "pip", "install", "--quiet", TORCH)):
        why = f"{TORCH} cannot be installed ({why}); try PIP_EXTRA_INDEX_URL={CPU_INDEX} tox"
        raise Fail(why) if "torch" in required else Skip(why)
    if "browser" in factors and (absent := [name for name in BROWSER if not shutil.which(name)]):
        why = f"there is no {' and no '.join(absent)}; on Debian: apt-get install {' '.join(BROWSER.values())}"
        raise Fail(why) if "browser" in required else Skip(why)
    if "cupy" in factors and (why := last_words(tox_env, "-P", "-c", PROBE)):
        if not why.startswith("xpnet.backend.gpu.DeviceError"):
            raise Fail(f"CuPy that does not work should be a DeviceError, and is {why}")
        # Whatever Python this environment starts from here on runs CuPy on the CPU, with two devices.
        tox_env.conf["set_env"].update({
            "PYTHONPATH": os.pathsep.join([str(TESTS / "cpucuda" / "site"), str(TESTS)]), "CPUCUDA_DEVICES": "2"})
        if why := last_words(tox_env, "-S", "-m", "cpucuda", "--check"):
            why = f"CuPy needs a GPU or the emulation in tests/cpucuda ({why})"
            raise Fail(why) if "cupy" in required else Skip(why)
        logging.warning("no GPU: CuPy runs on the CPU, by the emulation in tests/cpucuda")
