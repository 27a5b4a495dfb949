"""The readers under atheris, which follows what code an input reaches: ``python fuzz_atheris.py READER [options]``.

Options are libFuzzer's, like ``-runs=100000`` or ``-max_total_time=60``. It begins with the committed corpus, and
writes nothing to it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xpnet", "tarfile", "pickle", "zipfile"]):
    import fuzz_readers


def main() -> None:
    """Fuzz one reader."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        found, here = Path(scratch) / "found", Path(scratch) / "here"
        found.mkdir()
        here.mkdir()
        atheris.Setup(
            [sys.argv[0], "-timeout=20", "-rss_limit_mb=4096", *options, str(found), str(fuzz_readers.CORPUS / name)],
            lambda data: (fuzz_readers.read(name, data, here), None)[1],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
