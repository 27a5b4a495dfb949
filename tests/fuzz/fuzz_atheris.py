"""The readers under atheris, which follows what code an input reaches: ``python fuzz_atheris.py [READER ...]``.

Without readers, all of them, one after the other. Options of libFuzzer, like ``-runs=100000``, go with them; a minute
for each reader by default. It begins with the committed corpus, and writes nothing to it: an input that broke something
is kept in the working directory, where its name is said.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xpnet", "tarfile", "pickle", "zipfile"]):
    import fuzz_readers


def main() -> None:
    """Fuzz one reader, or each in a process of its own."""
    options = [word for word in sys.argv[1:] if word.startswith("-")] or ["-max_total_time=60"]
    names = [word for word in sys.argv[1:] if not word.startswith("-")] or list(fuzz_readers.READERS)
    if len(names) > 1:
        for name in names:
            print(f"{name}:", flush=True)
            subprocess.run([sys.executable, __file__, name, *options], check=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found, here = Path(scratch) / "found", Path(scratch) / "here"
        found.mkdir()
        here.mkdir()
        atheris.Setup(
            [sys.argv[0], "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0", *options,
             str(found), str(fuzz_readers.CORPUS / names[0])],
            lambda data: (fuzz_readers.read(names[0], data, here), None)[1],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
