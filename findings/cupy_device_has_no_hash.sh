#!/bin/sh
# A device of CuPy compares equal to itself and has no hash, so it cannot be the key of a dictionary.
#
# Seen with cupy-cuda12x 14.2.0 and 13.6.0, numpy 2.2.6 and array-api-strict 2.4 on Python 3.11, without a GPU. The array
# API standard says what a device is for (it is passed to ``device=``, compared by ``==``) and not that it can be hashed;
# those of NumPy, array-api-strict and PyTorch can. A cache with the key (shape, x.dtype, x.device), or
# functools.cache on a function of a device, therefore works with every library that a test without a GPU can use, and
# raises ``TypeError: unhashable type: 'cupy.cuda.device.Device'`` with CuPy. The class defines ``__eq__`` alone, for
# which Python sets ``__hash__`` to None; CuPy's streams, in the same place of a key, define both.
#
# Output: one line for each version, as below. A key that works is str(x.device), or x.device.id.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for version in 13.6.0 14.2.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "cupy-cuda12x==$version" numpy==2.2.6 array-api-strict==2.4 >&2
    found=$("$folder/$version/bin/python" -W ignore - <<'PYTHON'
import array_api_strict
import cupy
import numpy


def hashable(thing):
    try:
        return hash(thing) is not None
    except TypeError:
        return False


one, same, other = cupy.cuda.Device(1), cupy.cuda.Device(1), cupy.cuda.Device(2)
print("equal", one == same, one != other, "hash", hashable(one), hashable(numpy.empty(0).device),
      hashable(array_api_strict.empty(0).device), "stream", cupy.cuda.Stream.__hash__ is not None)
PYTHON
)
    echo "$version: $found"
    [ "$found" = "equal True True hash False True True stream True" ]
done
