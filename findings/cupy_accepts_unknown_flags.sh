#!/bin/sh
# CuPy takes ``x.flags.writeable = False`` without a word, and the array stays writable.
#
# Seen with cupy-cuda12x 14.2.0 and 13.6.0 and numpy 2.2.6 on Python 3.11, without a GPU. CuPy has no read-only arrays,
# and its flags no ``writeable``: reading it raises AttributeError. But the object that ``x.flags`` gives is one that
# takes any attribute, and is made anew each time. So the line with which NumPy's users protect a shared array or a
# constant runs on CuPy, raises nothing, and protects nothing. NumPy refuses flags that it does not know.
#
# An array needs a GPU, its flags do not: they are made here as an array makes them, of the three facts that it knows.
#
# Output: "numpy refuses; cupy reads AttributeError, sets, keeps False" for each version.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for version in 13.6.0 14.2.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "cupy-cuda12x==$version" numpy==2.2.6 >&2
    found=$("$folder/$version/bin/python" -W ignore - <<'PYTHON'
import numpy
from cupy._core.flags import Flags

words = []
try:
    numpy.ones(1).flags.protected = True
except AttributeError:
    words.append("numpy refuses;")
flags = Flags(True, True, True)  # contiguous in C and in Fortran's order, owner of its memory
try:
    flags.writeable
except AttributeError as error:
    words.append(f"cupy reads {type(error).__name__},")
flags.writeable = False
words += ["sets,", f"keeps {flags.writeable}"]
print(*words)
PYTHON
)
    echo "$version: $found"
    [ "$found" = "numpy refuses; cupy reads AttributeError, sets, keeps False" ]
done
