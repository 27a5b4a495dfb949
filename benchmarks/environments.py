"""Make one virtual environment per group of peers, so that no library sees or slows another.

    python benchmarks/environments.py [--envs DIR] [--python PYTHON] [--only torch,jax]

xpnet's environment is installed from this checkout. The peers' hold nothing of xpnet: it is neither in their memory
nor in their size. What is there already and still asked for is left as it is (xpnet itself is always installed
anew). Each environment gets an ``environment.json``: versions, and the bytes that each library and what it requires
take in site-packages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Groups of peers: what pip installs, and the distributions whose size counts, by the name in the tables.
GROUPS: dict[str, tuple[list[str], dict[str, tuple[str, ...]]]] = {
    "xpnet": ([str(ROOT)], {"NumPy": ("numpy",), "xpnet": ("xpnet",)}),
    "xpnet-fast": ([f"{ROOT}[fast]"], {}),
    "torch": (["torch==2.13.0", "numpy"], {"torch": ("torch",)}),
    "jax": (["jax", "equinox", "optax"], {"jax": ("jax",), "equinox": ("equinox", "optax")}),
    "scikit-learn": (["scikit-learn"], {"scikit-learn": ("scikit-learn",)}),
    "keras": (["keras", "jax"], {"Keras": ("keras", "jax")}),
    "thinc": (["thinc"], {"Thinc": ("thinc",)}),
}
#: Distributions of which a user may do without: the size is given without them too.
SPARED = {"xpnet": ("matplotlib",)}
#: Runs in an environment: versions, and sizes of what a distribution requires, itself included.
SURVEY = """
import importlib.metadata as metadata, json, os, platform, re, sys

def key(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def marked(requirement):
    if ";" not in requirement:
        return True
    from pip._vendor.packaging.markers import Marker
    return Marker(requirement.partition(";")[2]).evaluate({"extra": ""})

def closure(names, without):
    found, waiting = set(), [key(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        found.add(name)
        for requirement in metadata.distribution(name).requires or ():
            if marked(requirement):
                waiting.append(key(re.match(r"[A-Za-z0-9_.-]+", requirement).group()))
    return sorted(found)

def size(name):
    files = {os.path.realpath(f.locate()) for f in metadata.distribution(name).files or ()}
    return sum(os.path.getsize(f) for f in files if os.path.isfile(f))

ask = json.load(sys.stdin)
sizes = {}
for label, names in ask["sized"].items():
    for without in [(), *[tuple(w) for w in ask["spared"].get(label, ())]]:
        parts = closure(names, without)
        title = label + (" without " + ", ".join(without) if without else "")
        sizes[title] = {"bytes": sum(map(size, parts)), "distributions": parts}
versions = {key(d.metadata["Name"]): d.version for d in metadata.distributions()}
print(json.dumps({"python": platform.python_version(), "versions": versions, "sizes": sizes}))
"""


def default_place() -> Path:
    """Return the directory in which the environments are where none is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xpnet-benchmarks"


def interpreter(place: Path) -> Path:
    """Return an environment's Python."""
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def refuse_cuda(python: Path, requirements: list[str]) -> None:
    """Stop before pip fetches gigabytes of CUDA libraries, where its index offers no build for the CPU.

    Raises
    ------
    SystemExit
        If what pip would install for torch is a build for CUDA.
    """
    command = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *requirements]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    names = [item["metadata"]["name"] for item in report["install"]]
    if any(name.startswith(("nvidia", "cuda", "triton")) for name in names):
        raise SystemExit(
            f"pip would install {requirements[0]} for CUDA, with {len(names)} packages; point it at the build for the "
            "CPU: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu and torch==2.13.0+cpu with --torch"
        )


def make(group: str, envs: Path, base: str, torch: str) -> dict[str, Any]:
    """Make one environment if it is not there, and give its description."""
    requirements, sized = GROUPS[group]
    requirements = [torch if wanted.startswith("torch") else wanted for wanted in requirements]
    place = envs / group
    python, note = interpreter(place), place / "environment.json"
    wanted = {"requirements": [r.replace(str(ROOT), "xpnet") for r in requirements], "made_by": base}
    known = json.loads(note.read_text("utf-8")) if note.exists() else {}
    fresh = any(known.get(name) != value for name, value in wanted.items())
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    if fresh:
        print(f"{group}: installing {', '.join(wanted['requirements'])} in {place}", flush=True)
        note.unlink(missing_ok=True)
        subprocess.run([base, "-m", "venv", "--clear", str(place)], check=True)
        if group == "torch":
            refuse_cuda(python, requirements)
        subprocess.run([*pip, *requirements], check=True)
    elif group.startswith("xpnet"):
        subprocess.run([*pip, "--force-reinstall", "--no-deps", str(ROOT)], check=True)
    spared = {label: [names] for label, names in SPARED.items()}
    done = subprocess.run([python, "-c", SURVEY], input=json.dumps({"sized": sized, "spared": spared}), check=True,
                          capture_output=True, text=True)
    found: dict[str, Any] = wanted | json.loads(done.stdout)
    note.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def described(envs: Path, group: str) -> dict[str, Any]:
    """Return an environment's description.

    Raises
    ------
    SystemExit
        If it has not been made.
    """
    note = envs / group / "environment.json"
    if not note.exists():
        raise SystemExit(f"there is no environment {group!r} in {envs}; make it: "
                         f"python benchmarks/environments.py --envs {envs} --only {group}")
    found: dict[str, Any] = json.loads(note.read_text("utf-8"))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=default_place(), help="where the environments are made")
    parser.add_argument("--python", default=sys.executable, help="makes them (default: the one that runs this)")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    parser.add_argument("--torch", default="torch==2.13.0", help="pip's requirement for PyTorch; a build for the CPU")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.only.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"expected groups among {', '.join(GROUPS)}, got {', '.join(sorted(unknown))}")
    for group in chosen.only.split(","):
        found = make(group, chosen.envs.resolve(), chosen.python, chosen.torch)
        sizes = ", ".join(f"{name} {size['bytes'] / 1e6:.0f} MB" for name, size in found["sizes"].items())
        print(f"{group}: Python {found['python']}, {sizes}", flush=True)


if __name__ == "__main__":
    main()
