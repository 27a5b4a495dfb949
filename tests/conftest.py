"""Which backends the tests run on, and what every test shares.

``XPNET_BACKENDS=numpy,strict`` chooses backends; without it, numpy and strict run, and torch and cupy where
they work. ``XPNET_REQUIRE=cupy`` makes an absent one an error. A backend that was asked for and does not work
ends the run at once; one that was left out stands in the header with the reason. Tests without a device run where
NumPy is among the backends, unless they are marked as being about others.
"""

from __future__ import annotations

import os

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before NumPy is imported: small matrices gain nothing from more

import functools  # noqa: E402
import importlib  # noqa: E402
from typing import Any  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from xpnet.backend import Device, DeviceError  # noqa: E402

ALL = ("numpy", "strict", "torch", "cupy")
ALWAYS = ("numpy", "strict")
#: Other packages that tests are about: ``optional`` leaves out tests without them, unless XPNET_REQUIRE names them.
PACKAGES = {"dask": "distributed", "sklearn": "sklearn", "onnx": "onnxruntime", "pandas": "pandas",
            "tensorboard": "tensorboardX", "browser": "selenium", "numba": "numba"}

hypothesis.settings.register_profile("xpnet", derandomize=True, max_examples=25, deadline=None)
hypothesis.settings.load_profile("xpnet")


def names_in(variable: str) -> list[str]:
    """Return the backends that an environment variable names."""
    names = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    known = (*ALL, *PACKAGES) if variable == "XPNET_REQUIRE" else ALL
    unknown = [name for name in names if name not in known]
    if unknown:
        raise pytest.UsageError(f"{variable}: expected names out of {', '.join(known)}; got {', '.join(unknown)}")
    return names


def optional(name: str) -> Any:
    """Import a package of ``PACKAGES`` for a whole test module, or leave the module out and say why."""
    try:
        return importlib.import_module(PACKAGES[name])
    except ImportError as error:
        if name in names_in("XPNET_REQUIRE"):
            raise
        pytest.skip(f"{PACKAGES[name]} is not installed ({error})", allow_module_level=True)


@functools.cache
def backends() -> tuple[dict[str, Device], dict[str, str]]:
    """Return the devices to test by backend, and the reasons why others are left out."""
    asked, required = names_in("XPNET_BACKENDS"), names_in("XPNET_REQUIRE")
    needed = {*(asked or ALWAYS), *(name for name in required if name in ALL)}
    devices, left_out = {}, {}
    for name in ALL:
        if asked and name not in needed:
            left_out[name] = "not in XPNET_BACKENDS"
            continue
        try:
            devices[name] = Device.backend(name)
        except DeviceError as error:
            if name in needed:
                raise pytest.UsageError(f"the backend {name} was asked for and does not work: {error}") from None
            left_out[name] = str(error)
    return devices, left_out


def pytest_configure(config: pytest.Config) -> None:
    """Find the backends before anything else, so that an absent one ends the run with one message."""
    config.addinivalue_line("markers", "backends(*names): the backends that a test is about, out of those chosen")
    backends()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the backends that run, and those that do not, with the reason."""
    devices, left_out = backends()
    return [f"backends: {', '.join(devices)}"] + [f"left out: {name} ({why})" for name, why in left_out.items()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what never leaves the host where NumPy was not chosen: it would do the same as with NumPy."""
    devices = backends()[0]
    left_out = []
    for item in items:
        marker = item.get_closest_marker("backends")
        # The emulation's own tests know nothing of xpnet, nor of its markers.
        about = set(marker.args) if marker else {"cupy"} if "cpucuda" in item.path.parts else {"numpy"}
        if "device" not in getattr(item, "fixturenames", ()) and not about & set(devices):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes ``device`` on each backend."""
    if "device" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("backends")
        names: list[Any] = [name for name in backends()[0] if marker is None or name in marker.args]
        if not names and marker is not None:
            why = f"a test of {' and '.join(marker.args)}, not chosen in this run"
            names = [pytest.param("none", marks=pytest.mark.skip(reason=why))]
        metafunc.parametrize("device", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Device:
    """Return the device of one backend."""
    return backends()[0][request.param]


@pytest.fixture(scope="session")
def xp(device: Device) -> Any:
    """Return the namespace of one backend."""
    return device.xp
