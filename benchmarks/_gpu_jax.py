"""The same job in JAX: a scan over the updates of an epoch, and many models under vmap."""

from __future__ import annotations

from typing import Any

import numpy as np
from _gpu_job import (
    BATCH_NORM,
    COMPARED,
    Clock,
    Job,
    add_model_steps,
    has_time,
    imported,
    jobs,
    measure,
    model_counts,
    per_step,
    same_job,
    sweep,
)
from _gpu_section import AbsentError, Section


class JaxJob:
    """The job in JAX: a scan over the updates of a chunk, of one model or of several under vmap."""

    def __init__(
        self, jax: Any, job: Job, host: tuple[np.ndarray, np.ndarray], device: Any, chunk: int,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.jax, self.job, self.chunk, self.done = jax, job, chunk, 0
        np_ = jax.numpy
        self.device = device
        models = (len(options["l2"]),) if options else ()
        weights = job.weights(options["seed"] if options else 0)
        wide = [w.shape[-1] for w in weights]
        self.data = tuple(jax.device_put(a, device) for a in (host[0], host[1].astype(np.int32)))
        self.moments = tuple(jax.device_put(a, device) for a in job.moments(host[0]))
        self.l2 = jax.device_put(np.asarray(options["l2"] if options else job.l2, np.float32), device)
        zeros = [np.zeros((*models, k), np.float32) for k in wide]
        ones = [np.ones((*models, k), np.float32) for k in wide[:-1]]
        self.state = jax.device_put(((weights, zeros, ones, zeros[:-1]), (zeros[:-1], ones)), device)

        def loss(parameters: Any, x: Any, y: Any) -> Any:
            W, b, gamma, beta = parameters
            means, variances = [], []
            for k in range(len(W)):
                x = x @ W[k] + b[k]
                if k < len(W) - 1:
                    mean, var = x.mean(axis=0), x.var(axis=0)
                    means.append(mean)
                    variances.append(var)
                    x = jax.nn.relu((x - mean) * jax.lax.rsqrt(var + BATCH_NORM.eps) * gamma[k] + beta[k])
            picked = np_.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1)
            return -picked.mean(), (means, variances)

        def update(state: Any, l2: Any, x: Any, y: Any, lr: Any, share: Any) -> Any:
            parameters, running = state
            (value, batch), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, x, y)
            minus = lambda w, g: w - lr * g  # noqa: E731
            W = [w * (1.0 - 2.0 * lr * l2) - lr * g for w, g in zip(parameters[0], gradients[0], strict=True)]
            rest = jax.tree_util.tree_map(minus, parameters[1:], gradients[1:])
            running = jax.tree_util.tree_map(lambda r, b: r + share * (b - r), running, batch)
            return ((W, *rest), running), value

        if models:
            update = jax.vmap(update, in_axes=(0, 0, None, None, None, None))

        def scan(state: Any, l2: Any, data: Any, moments: Any, order: Any, rates: Any, shares: Any) -> Any:
            def body(state: Any, step: Any) -> Any:
                rows, lr, share = step
                x = (data[0][rows].astype(np_.float32) - moments[0]) * moments[1]
                return update(state, l2, x, data[1][rows], lr, share)

            return jax.lax.scan(body, state, (order, rates, shares))

        self._scan = jax.jit(scan, donate_argnums=0)

    def run(self, steps: int) -> int:
        """Make at least so many updates, in whole chunks; the order of an epoch is cut into chunks."""
        made = 0
        while made < steps:
            epoch, i = divmod(self.done, self.job.per_epoch)
            if not i:
                self._order = self.job.order(epoch).astype(np.int32)
            rates = self.job.rates(self.done, self.chunk).astype(np.float32)
            shares = np.full(self.chunk, 1.0 - BATCH_NORM.momentum, np.float32)
            if not self.done:
                shares[0] = 1.0  # the first batch sets the running statistics
            steps_in = self.jax.device_put((self._order[i : i + self.chunk], rates, shares), self.device)
            self.state, self.losses = self._scan(self.state, self.l2, self.data, self.moments, *steps_in)
            self.done += self.chunk
            made += self.chunk
        return made

    def first_losses(self) -> np.ndarray:
        """Make the first updates, and give their losses."""
        found: list[np.ndarray] = []
        while sum(map(len, found)) < COMPARED:
            self.run(1)
            found.append(np.asarray(self.losses))
        return np.concatenate(found)[:COMPARED]


def jax_device(section: Section, device: str) -> tuple[Any, Any]:
    """Return JAX and its device.

    Raises
    ------
    AbsentError
        If JAX is not there or sees no GPU.
    """
    jax = imported(section, "jax")
    try:
        found = jax.devices("cpu" if device == "cpu" else "gpu")[int(device.partition(":")[2] or 0)]
    except RuntimeError as error:
        raise AbsentError(f"JAX {jax.__version__} sees no GPU: {error}") from error
    jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
    return jax, found


def jax_scan(section: Section, device: str) -> None:
    """Measure JAX with a scan over an epoch; by the host's clock, as JAX has no events."""
    jax, where = jax_device(section, device)
    section.result("version", jax.__version__)
    lines = []
    for left, (name, job) in zip((2, 1), jobs(section).items(), strict=True):
        host = job.data()
        task = JaxJob(jax, job, host, where, job.per_epoch)
        same_job(section, name, task.first_losses(), job.reference(host))
        task.run(1)
        found = measure(section, task.run, Clock(lambda task=task: jax.block_until_ready(task.losses)),
                        min(5.0, 0.5 * section.left() / left))
        section.result(name, found)
        lines.append(per_step(name, found))
    section.result("headline", "; ".join(lines))


def jax_vmap(section: Section, device: str) -> None:
    """Measure JAX with many models under vmap, in scans of 50 updates that share their batches."""
    jax, where = jax_device(section, device)
    section.result("version", jax.__version__)
    job = jobs(section)["3 layers"]
    host = job.data()
    counts, lines = model_counts(section), []
    chunk = min(50, job.per_epoch)
    for k, models in enumerate(counts):
        if not has_time(section, models):
            break
        options = sweep(models)
        task = JaxJob(jax, job, host, where, chunk, options)
        first = task.first_losses()
        if models <= 4:
            same_job(section, f"{models} models", first, job.reference(host, **options))
        found = measure(section, task.run, Clock(lambda task=task: jax.block_until_ready(task.losses)),
                        min(4.0, 0.4 * section.left() / (len(counts) - k)), 2000)
        lines.append(add_model_steps(found, models))
        section.result(f"{models} models", found)
        del task
    section.result("headline", f"model-steps per second: {', '.join(lines)}")
