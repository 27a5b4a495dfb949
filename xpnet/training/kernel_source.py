"""The source of a kernel that makes many updates of a network: the code of its layers in their places."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backend.cuda.persistent import fixed_source
from ..nn.device_code import LAYERS, LOSSES
from ..nn.layers import Linear
from ..nn.sequential import Sequential
from .device_rules import RuleCode

__all__ = ["Geometry", "Program", "write"]

FEW = 32  # outputs of which a block computes the gradients of all


@dataclass(frozen=True)
class Geometry:
    """How a kernel is laid out: see ``persistent.cu``."""

    batch: int
    threads: int
    group: int
    share: int  # features of a block
    chunk: int  # features in shared memory at once
    team: int
    first_in_shared: bool


@dataclass
class Program:
    """A kernel's source, the hyper-parameters in the order in which it reads them, and the memory that it needs."""

    text: str = ""
    numbers: list[Any] = field(default_factory=list)
    scratch: int = 0  # numbers for each group of blocks

    def room(self, size: int) -> int:
        """Return where in the scratch memory the next ``size`` numbers are."""
        self.scratch += size
        return self.scratch - size

    def number(self, value: Any) -> int:
        """Return the place of a hyper-parameter."""
        self.numbers.append(value)
        return len(self.numbers) - 1


def _offsets(network: Sequential, names: tuple[str, ...]) -> dict[str, int]:
    """Return where each array begins among those of one segment; the segment's size is that of ""."""
    found, start = {}, 0
    for name in names:
        found[name] = start
        start += math.prod(network.shapes[name])
    return {**found, "": start}


def write(network: Sequential, rule: RuleCode, loss: Any, geometry: Geometry, types: Mapping[str, str],
          standardizes: bool, seeds: int) -> Program:
    """Write the source of the kernel of a network.

    Parameters
    ----------
    network : Sequential
        The layers behind the standardisation.
    rule : RuleCode
        What ``rule_code`` returned.
    loss : Loss
        The objective.
    geometry : Geometry
        The layout.
    types : mapping of str to str
        C's names of the types T (of the network), X (features), C (in which they are standardised).
    standardizes : bool
        Whether features are standardised.
    seeds : int
        The number of seeds of dropout: one, or one for each model.

    Returns
    -------
    Program
        The source and what goes with it.
    """
    program, g = Program(), geometry
    weights = _offsets(network, network.weights[1:])
    vectors = _offsets(network, tuple(p for p in network.parameters if p not in network.weights))
    running = _offsets(network, network.statistics)
    functions: list[str] = []
    # Stages: what follows the input, and what follows each dense layer, up to the next one.
    stages: list[list[int]] = [[]]
    dense: list[int] = []
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Linear):
            dense.append(i)
            stages.append([])
        else:
            stages[-1].append(i)
            drawn = sum(other.noisy for other in network.layers[: i + 1])
            functions.append(_layer(program, network, i, vectors, running, drawn, g.batch))
    widths = [network.in_features, *(network.layers[i].out_features(0) for i in dense)]
    program.text = _update(program, network, stages, dense, widths, weights, vectors, g)
    code = LOSSES[type(loss)]
    constants = {
        "THREADS": g.threads, "TEAM": g.team, "GROUP": g.group, "BATCH": g.batch, "FEATURES": widths[0],
        "SLICE": g.share, "CHUNK": g.chunk, "FIRST_WIDTH": widths[1], "OUTPUTS": widths[-1],
        "SCRATCH": program.scratch, "WEIGHTS": weights[""], "VECTORS": vectors[""], "RUNNING": running[""],
        "SEEDS": seeds}
    rates = list(rule.rates(1.0, 0))
    own = {name: program.number(value) for name, value in rule.numbers.items()}
    members = [*rates, *own]
    values = [*(f"rates[{i}]" for i in range(len(rates))), *(f"numbers[{i}]" for i in own.values())]
    words = set(re.findall(r"\w+", rule.text))
    names = ", ".join(f"{name} = s.rule.{name}" for name in members if name in words)
    constants |= {"NUMBERS": len(program.numbers), "RATES": len(rates)}
    head = [
        "#include <cooperative_groups.h>", *(f"typedef {kind} {name};" for name, kind in types.items()),
        f"typedef {'long long' if code.labels else 'T'} Y;",
        *(f"constexpr int {name} = {value};" for name, value in constants.items()),
        *(f"constexpr bool {name} = {str(value).lower()};" for name, value in (
            ("FIRST_IN_SHARED", g.first_in_shared), ("STANDARDIZES", standardizes))),
        f"struct Rule {{ T {', '.join(members)}; }};", ""]
    tail = f"""
__device__ Rule rule_of(const T* numbers, const T* rates) {{ return {{{", ".join(values)}}}; }}

__device__ void descend(const Step& s, T& w, T g, T& slot0, T& slot1, bool weight) {{
    const T {names};
    {rule.text}
}}

__device__ T loss_of(const Step& s, const T* outputs, int b, int k, T& gradient) {{
    const Y* target = s.targets + (long long)s.examples[b] * {1 if code.labels else "OUTPUTS"};
    const T n = s.n;
    auto y = [&](int j) {{ return outputs[j * BATCH + b]; }};
    T value = 0;{code.text}
    return value;
}}

__device__ void lose(const Step& s, const T* outputs, T* dz) {{
    for (int i = threadIdx.x; i < OUTPUTS * s.n; i += THREADS) {{
        int k = i / s.n, b = i % s.n;
        T value = loss_of(s, outputs, b, k, dz[k * BATCH + b]);
        if (k == 0) dz[OUTPUTS * BATCH + b] = value;
    }}
}}
"""
    program.text = "\n".join([*head, fixed_source(), *functions, tail, program.text])
    return program


def _layer(program: Program, network: Sequential, i: int, vectors: Mapping[str, int], running: Mapping[str, int],
           drawn: int, batch: int) -> str:
    """Write the functions of a layer, ``forward_i`` and ``backward_i``."""
    layer, names, width = network.layers[i], network._names[i], network.widths[i]
    code = LAYERS[type(layer)]
    parameters = dict(zip(layer.parameters, names, strict=False))
    statistics = dict(zip(layer.statistics, names[len(parameters) :], strict=True))
    place = program.room(width * (batch + 1)) if code.saves else 0
    known = {"n": "const T n = s.n;", "saved": f"T* saved = s.scratch + {place} + c.k * (BATCH + 1);",
             **{own: f"const T {own} = s.vectors.w[{vectors[name]} + c.k];" for own, name in parameters.items()},
             **{own: f"T& {own} = s.running[{running[name]} + c.k];" for own, name in statistics.items()},
             **{own: f"const T {own} = s.numbers[{program.number(value)}];"
                for own, value in code.numbers(layer).items()},
             "WIDTH": f"constexpr int WIDTH = {width};",
             "PURPOSE": f"constexpr unsigned PURPOSE = {zlib.crc32(f'noise{drawn}'.encode())}u;",
             **{f"d{own}": f"T d{own} = 0;" for own in parameters}}
    after = ["    __syncthreads();  // until the team has read its parameters"] * bool(parameters)
    for own, name in parameters.items():
        after.append(f"    descend_vector(s, c, s.vectors.at({vectors[name]} + c.k), d{own});")

    def function(name: str, text: str, after: list[str]) -> list[str]:
        words = set(re.findall(r"\w+", text))
        return [f"__device__ void {name}_{i}(const Step& s, const Column& c, T (&v)[PER]) {{",
                *(f"    {line}" for word, line in known.items() if word in words), text.strip("\n"), *after, "}"]

    return "\n".join([f"// Layer {i + 1}: {type(layer).__name__}", *function("forward", code.forward, []),
                      *function("backward", code.backward, after), ""])


def _update(program: Program, network: Sequential, stages: list[list[int]], dense: list[int], widths: list[int],
            weights: Mapping[str, int], vectors: Mapping[str, int], geometry: Geometry) -> str:
    """Write the update: the stages forward, the loss, and the stages backward, with a barrier behind each."""
    last, batch = len(dense), geometry.batch
    products = program.room(-(-widths[0] // geometry.share) * widths[1] * batch)
    outputs = [0, *(program.room(width * batch) for width in widths[1:])]
    gradients = ["", *(f"s.scratch + {program.room(width * batch)}" for width in widths[1:])]
    biases = [0, *(vectors[network._names[i][1]] for i in dense)]
    matrices = [0, 0, *(weights[network._names[i][0]] for i in dense[1:])]
    lines: list[str] = []

    def forward(stage: int) -> list[str]:
        return [f"forward_{i}(s, c, v);" for i in stages[stage]]

    def backward(stage: int) -> list[str]:
        found = [f"backward_{i}(s, c, v);" for i in reversed(stages[stage])]
        cancelled = dense[stage - 1] + 1 < len(network.layers) and network.layers[dense[stage - 1] + 1].cancels_bias
        # The gradient of a bias that the next layer cancels is 0: see ``Learner``.
        db = "0" if cancelled else "c.total([&](int i, int b) { return v[i]; })"
        return [*found, f"descend_vector(s, c, s.vectors.at({biases[stage]} + c.k), {db});",
                f"c.store(v, {gradients[stage]} + c.k * BATCH);"]

    def columns(width: int, body: list[str], meet: bool = True) -> None:
        lines.extend([f"for (int round = 0; s.has(round, {width}); round++) {{",
                      f"    const Column c(s.feature(round), {width}, s.n);", "    T v[PER];",
                      *(f"    {line}" for line in body), "}", *["barrier();"] * meet])

    def inputs(body: list[str]) -> None:
        lines.extend(["for (int round = 0; round * TEAMS < SLICE; round++) {",
                      "    const int k = round * TEAMS + threadIdx.x / TEAM;",
                      "    const Column c(k < s.count ? s.from + k : FEATURES, FEATURES, s.n);", "    T v[PER];",
                      *(f"    {line}" for line in body), "}", "__syncthreads();"])

    lines += [f"T* const products = s.scratch + {products};", "for (int chunk = 0; chunk < CHUNKS; chunk++) {",
              "    gather(s, chunk * CHUNK);", "    __syncthreads();"]
    if stages[0]:
        lines.append("}")
        inputs(["c.load(v, s.xs + k * ROOM);", *forward(0), "c.store(v, s.xs + k * ROOM);"])
        lines += ["for (int chunk = 0; chunk < CHUNKS; chunk++) {"]
    lines += ["    if (s.count) multiply(s, chunk * CHUNK, products + s.rank * FIRST_WIDTH * BATCH, chunk);",
              "    __syncthreads();", "}", "barrier();"]
    for stage in range(1, last + 1):
        own = f"s.vectors.w[{biases[stage]} + c.k], v);"
        made = f"add_up(c, products, {own}" if stage == 1 else (
            f"dense<{widths[stage - 1]}, {widths[stage]}>(c, s.scratch + {outputs[stage - 1]}, "
            f"s.weights.w + {matrices[stage]}, {own}")
        columns(widths[stage], [made, *forward(stage), f"c.store(v, s.scratch + {outputs[stage]} + c.k * BATCH);"])
    made = f"s.scratch + {outputs[last]}"
    if stages[last] or widths[last] > FEW:
        columns(widths[last], [
            f"const T value = c.total([&](int i, int b) {{ return loss_of(s, {made}, b, c.k, v[i]); }});",
            "if (c.leads() && c.k == 0) *s.losses = value;", *backward(last)])
    else:  # each block that needs the gradient computes all of it, and waits for no other
        size = (widths[last] + 1) * batch  # the examples' losses come last
        gradients[last] = f"s.scratch + {program.room(geometry.group * size)} + s.rank * {size}"
        needed = "true" if last == 1 else f"s.has(0, {max(widths[last - 1], widths[last])})"
        lines += [f"if ({needed}) {{", f"    lose(s, {made}, {gradients[last]});", "    __syncthreads();", "}"]
        columns(widths[last], [
            f"const T value = c.total([&](int i, int b) {{ return ({gradients[last]})[OUTPUTS * BATCH + b]; }});",
            "if (c.leads() && c.k == 0) *s.losses = value;", f"c.load(v, {gradients[last]} + c.k * BATCH);",
            *backward(last)[:-1]], meet=False)
    for stage in range(last, 1, -1):
        columns(widths[stage - 1], [
            f"dense_backward<{widths[stage]}>(s, c, s.scratch + {outputs[stage - 1]}, {gradients[stage]}, "
            f"s.weights.at({matrices[stage]}), v);", *backward(stage - 1)])
    dz = gradients[1]
    if any(network.layers[i].parameters for i in stages[0]):
        first = next(i for i in stages[0] if network.layers[i].parameters)
        inputs(["c.each([&](int i, int b) { v[i] = 0; });", "for (int j = 0; j < FIRST_WIDTH; j++)",
                f"    c.each([&](int i, int b) {{ v[i] += ({dz})[j * BATCH + b] * s.first_row(k)[j]; }});",
                *(f"backward_{i}(s, c, v);" for i in reversed(stages[0]) if i >= first)])
    lines += ["for (int chunk = CHUNKS - 1; chunk >= 0; chunk--) {", "    if (chunk < CHUNKS - 1) {",
              "        gather(s, chunk * CHUNK);", "        __syncthreads();", "    }",
              f"    if (s.count) descend_first(s, chunk * CHUNK, {dz});", "    __syncthreads();", "}"]
    return "\n".join(["__device__ void update(const Step& s) {", *(f"    {line}" for line in lines), "}", ""])
