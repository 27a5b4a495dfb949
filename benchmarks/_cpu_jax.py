"""JAX in the comparison: a scan over the updates, many models in it under vmap, and Equinox with Optax."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _cpu_job import EPS, KEPT, Data, Job

jax.config.update("jax_default_matmul_precision", "highest")


class Common:
    """The data on the device, and the order of the batches."""

    cost = False

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.done, self.epoch = job, 0, 0
        self.data = tuple(map(jnp.asarray, (data.x, data.y.astype(np.int32), data.mean, data.inverse)))
        self.order = np.empty((0, job.size), np.int32)
        self.found: list[Any] = []

    def rows(self, n: int) -> np.ndarray:
        """Return the examples of the next ``n`` updates, int32 of shape (n, size)."""
        while len(self.order) < n:
            self.order = np.concatenate([self.order, self.job.order(self.epoch).astype(np.int32)])
            self.epoch += 1
        now, self.order = self.order[:n], self.order[n:]
        return now

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps, *models)."""
        return np.concatenate([np.atleast_1d(np.asarray(losses)) for losses in self.found])


def batch_of(data: tuple[Any, ...], rows: Any) -> tuple[Any, Any]:
    """Gather and standardise."""
    x, y, mean, inverse = data
    return (x[rows].astype(jnp.float32) - mean) * inverse, y[rows]


def loss_of(parameters: dict[str, Any], x: Any, y: Any, job: Job) -> tuple[Any, dict[str, Any]]:
    """Return the mean cross-entropy, and the batch's statistics by the names of the running ones."""
    batch = {}
    for k in range(1, len(job.hidden) + 2):
        x = x @ parameters[f"W{k}"] + parameters[f"b{k}"]
        if k <= len(job.hidden):
            if job.batch_norm:
                batch |= {f"mean{k}": x.mean(axis=0), f"var{k}": x.var(axis=0)}
                x = (x - batch[f"mean{k}"]) * jax.lax.rsqrt(batch[f"var{k}"] + EPS)
                x = x * parameters[f"gamma{k}"] + parameters[f"beta{k}"]
            x = jax.nn.relu(x)
    return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1).mean(), batch


class Scan(Common):
    """One ``jax.jit`` of a ``lax.scan`` over a chunk of updates; a sweep's models under vmap inside it."""

    def __init__(self, job: Job, data: Data) -> None:
        super().__init__(job, data)
        parameters = {name: np.broadcast_to(a, (*job.models, *a.shape)) for name, a in job.start().items()}
        zeros = {f"mean{k}": np.zeros((*job.models, w), np.float32) for k, w in enumerate(job.hidden, 1)}
        ones = {f"var{k}": np.ones((*job.models, w), np.float32) for k, w in enumerate(job.hidden, 1)}
        self.state = jax.tree.map(jnp.array, (parameters, zeros | ones if job.batch_norm else {}))
        self.l2 = jnp.asarray(job.l2, jnp.float32)

        def update(state: Any, l2: Any, x: Any, y: Any, lr: Any) -> Any:
            parameters, running = state
            (value, batch), gradients = jax.value_and_grad(partial(loss_of, job=job), has_aux=True)(parameters, x, y)
            new = {name: w - lr * (gradients[name] + (2.0 * l2 * w if name.startswith("W") else 0.0))
                   for name, w in parameters.items()}
            return (new, jax.tree.map(lambda r, b: KEPT * r + (1.0 - KEPT) * b, running, batch)), value

        if job.models:
            update = jax.vmap(update, in_axes=(0, 0, None, None, None))

        @partial(jax.jit, donate_argnums=0)
        def scan(state: Any, l2: Any, data: Any, order: Any, rates: Any) -> Any:
            def body(state: Any, step: Any) -> Any:
                rows, lr = step
                return update(state, l2, *batch_of(data, rows), lr)

            return jax.lax.scan(body, state, (order, rates))

        self.scan = scan

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates, in chunks of the job's size and one of what is left."""
        made, self.found = 0, []
        began = time.perf_counter()
        while made < steps:
            chunk = min(steps - made, self.job.chunk)
            rates = self.job.rates(self.done, chunk)
            self.state, losses = self.scan(self.state, self.l2, self.data, self.rows(chunk), rates)
            self.found.append(losses)
            self.done += chunk
            made += chunk
        jax.block_until_ready(self.state)
        return made, time.perf_counter() - began

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        return {name: np.asarray(a) for part in self.state for name, a in part.items()}


class Equinox(Common):
    """Equinox modules and Optax's SGD with decayed weights: one jitted update, called in a Python loop.

    Only arrays cross into ``jax.jit``, as Equinox advises for small models: ``filter_jit`` takes longer.
    """

    def __init__(self, job: Job, data: Data) -> None:
        import equinox as eqx
        import optax

        super().__init__(job, data)
        layers: list[Any] = []
        for k, w in enumerate(job.weights()):
            dense = eqx.nn.Linear(*w.shape, key=jax.random.key(0))
            layers.append(eqx.tree_at(lambda m: (m.weight, m.bias), dense, (jnp.array(w.T), jnp.zeros(w.shape[1]))))
            if k < len(job.hidden):
                if job.batch_norm:
                    layers.append(eqx.nn.BatchNorm(w.shape[1], "batch", EPS, momentum=KEPT, mode="batch"))
                layers.append(eqx.nn.Lambda(jax.nn.relu))
        model, norms = eqx.nn.make_with_state(eqx.nn.Sequential)(layers)
        parameters, static = eqx.partition(model, eqx.is_array)
        decayed = jax.tree.map(lambda leaf: leaf.ndim == 2, parameters)
        l2, half, low, high = float(job.penalties[0]), job.half, job.lowest, job.highest
        optimizer = optax.chain(
            optax.add_decayed_weights(2.0 * l2, decayed),
            optax.sgd(lambda t: low + (high - low) * (1.0 - jnp.abs(t % (2 * half) / half - 1.0))),
        )

        def loss(model: Any, norms: Any, x: Any, y: Any) -> Any:
            outputs, norms = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, norms)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), norms

        @partial(jax.jit, donate_argnums=0)
        def update(state: Any, data: Any, rows: Any) -> Any:
            parameters, norms, moments = state
            model, (x, y) = eqx.combine(parameters, static), batch_of(data, rows)
            (value, norms), gradients = eqx.filter_value_and_grad(loss, has_aux=True)(model, norms, x, y)
            changes, moments = optimizer.update(gradients, moments, parameters)
            return (eqx.apply_updates(parameters, changes), norms, moments), value

        self.update, self.state, self.module = update, (parameters, norms, optimizer.init(parameters)), eqx

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates."""
        began = time.perf_counter()
        self.found = []
        for _ in range(steps):
            self.state, value = self.update(self.state, self.data, self.rows(1)[0])
            self.found.append(value)
            self.done += 1
        jax.block_until_ready(self.state)
        return steps, time.perf_counter() - began

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        model, norms, _ = self.state  # the model's arrays, in the modules' places
        found, k = {}, 0
        for layer in model.layers:
            if isinstance(layer, self.module.nn.Linear):
                k += 1
                found |= {f"W{k}": np.asarray(layer.weight).T, f"b{k}": np.asarray(layer.bias)}
            elif isinstance(layer, self.module.nn.BatchNorm):
                mean, var = norms.get(layer.batch_state_index)
                found |= {f"gamma{k}": np.asarray(layer.weight), f"beta{k}": np.asarray(layer.bias),
                          f"mean{k}": np.asarray(mean), f"var{k}": np.asarray(var)}
        return found
