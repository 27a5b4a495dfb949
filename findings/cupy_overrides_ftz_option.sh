#!/bin/sh
# A RawKernel with the option -ftz=false still flushes subnormal numbers to zero.
#
# Seen with cupy-cuda12x 14.2.0, NVIDIA's compiler of nvidia-cuda-nvrtc-cu12 12.9.86 and numpy 2.2.6 on Python 3.11,
# without a GPU. The options of cupy.RawKernel and RawModule are for the compiler, as CuPy's documentation has it. CuPy
# appends -ftz=true to them, behind those that were given, and of two the compiler heeds the last, without a warning. So
# float32 products below 1.2e-38 are 0 in kernels of one's own as in CuPy's, and the option that the compiler has against
# it changes nothing. A kernel whose author compiled and tested it with nvcc, where the default is -ftz=false, computes
# other numbers in CuPy.
#
# Choosing a kernel's options needs no GPU but for asking which one there is: that answer is given here (compute
# capability 8.0), and the compiler is run with the options that CuPy hands to it.
#
# Output:
#   the compiler alone: mul.f32; with -ftz=false: mul.f32
#   from CuPy: -ftz=false -ftz=true: mul.ftz.f32
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cupy-cuda12x==14.2.0 numpy==2.2.6 nvidia-cuda-nvrtc-cu12==12.9.86 >&2
found=$("$folder/venv/bin/python" -W ignore - <<'PYTHON'
import re

from cupy.cuda import compiler, nvrtc

SOURCE = 'extern "C" __global__ void square(float* x) { x[0] = x[0] * x[0]; }'


def product(*options):
    """Compile the source, and give the instruction that multiplies."""
    program = nvrtc.createProgram(SOURCE, "square.cu", (), ())
    nvrtc.compileProgram(program, ("-arch=compute_80", *options))
    ptx = nvrtc.getPTX(program)
    return re.search(r"mul\.\S+", ptx if isinstance(ptx, str) else ptx.decode())[0]


class Chosen(Exception):
    pass


def choose(source, options, *rest):
    raise Chosen(*options)


compiler._get_arch_for_options_for_nvrtc = lambda arch: ("-arch=sm_80", "cubin")  # what a GPU would be asked for
compiler._preprocess = lambda *arguments: ""
compiler.function.Module = object
compiler._compile_using_nvrtc_no_warning = choose
try:  # what RawKernel(SOURCE, "square", options=("-ftz=false",)) calls
    compiler._compile_module_with_cache(SOURCE, ("-ftz=false",), arch="80")
except Chosen as chosen:
    options = chosen.args
print(f"the compiler alone: {product()}; with -ftz=false: {product('-ftz=false')}")
print(f"from CuPy: {' '.join(options)}: {product(*options)}")
PYTHON
)
echo "$found"
[ "$found" = "the compiler alone: mul.f32; with -ftz=false: mul.f32
from CuPy: -ftz=false -ftz=true: mul.ftz.f32" ]
