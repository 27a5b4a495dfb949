"""The same job in PyTorch (eager, one CUDA graph, torch.compile) and in JAX (a scan; a vmap over models).

Peers are optional: one that is not installed, or sees no GPU, is recorded as absent with the reason.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from _gpu_job import (
    COMPARED,
    Clock,
    Job,
    jobs,
    measure,
    microseconds,
    model_counts,
    same_job,
    sweep,
)
from _gpu_section import AbsentError, Section

EPS, MOMENTUM = 1e-5, 0.9  # of batch norm


def imported(name: str) -> Any:
    """Import a peer.

    Raises
    ------
    AbsentError
        If it is not installed, or does not import.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise AbsentError(f"{name} does not import: {type(error).__name__}: {error}") from error


# PyTorch ----------------------------------------------------------------------------------------------------------


class TorchJob:
    """The job's data, network and loss in PyTorch, on one device."""

    def __init__(self, torch: Any, job: Job, host: tuple[np.ndarray, np.ndarray], device: str) -> None:
        self.torch, self.job, self.device, self.done = torch, job, torch.device(device), 0
        self.x, self.y = (torch.from_numpy(a).to(self.device) for a in host)
        self.mean, self.inverse = (torch.from_numpy(a).to(self.device) for a in job.moments(host[0]))
        layers: list[Any] = []
        weights = job.weights()
        for k, w in enumerate(weights):
            linear = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T))
                linear.bias.zero_()
            layers.append(linear)
            if k < len(weights) - 1:
                layers += [torch.nn.BatchNorm1d(w.shape[1], eps=EPS, momentum=1.0 - MOMENTUM), torch.nn.ReLU()]
        self.net = torch.nn.Sequential(*layers).to(self.device).train()
        self.weights = [m.weight for m in self.net if isinstance(m, torch.nn.Linear)]
        self.others = [p for p in self.net.parameters() if not any(p is w for w in self.weights)]
        self.order = torch.empty((job.per_epoch, job.size), dtype=torch.int64, device=self.device)

    def new_order(self) -> None:
        """Bring the epoch's order to the device, where one begins."""
        if not self.done % self.job.per_epoch:
            self.order.copy_(self.torch.from_numpy(self.job.order(self.done // self.job.per_epoch)))

    def loss(self, rows: Any) -> Any:
        """Gather, standardise, and give the mean cross-entropy."""
        x = (self.x[rows].float() - self.mean) * self.inverse
        return self.torch.nn.functional.cross_entropy(self.net(x), self.y[rows])


def eager_step(task: TorchJob, loss_of: Callable[[Any], Any]) -> Callable[[], Any]:
    """Give a step as PyTorch's own optimiser makes it; its weight decay is added to the gradient as 2 * l2 * W."""
    optimizer = task.torch.optim.SGD(
        [{"params": task.weights, "weight_decay": 2.0 * task.job.l2}, {"params": task.others}], lr=0.0,
        fused=task.device.type == "cuda" or None,
    )

    def step() -> Any:
        task.new_order()
        for group in optimizer.param_groups:
            group["lr"] = task.job.schedule(task.done)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(task.order[task.done % task.job.per_epoch])
        loss.backward()
        optimizer.step()
        task.done += 1
        return loss.detach()

    return step


def graph_step(task: TorchJob) -> Callable[[], Any]:
    """Give a step as one captured CUDA graph: which batch and which rate are counters on the device."""
    torch, job, device = task.torch, task.job, task.device
    period = 2 * job.schedule.step_size
    rates = torch.from_numpy(job.rates(0, period).astype(np.float32)).to(device)
    update, batch = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
    parameters = [*task.weights, *task.others]

    def whole() -> Any:
        loss = task.loss(task.order.index_select(0, batch).squeeze(0))
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            lr = rates.index_select(0, update).squeeze(0)
            torch._foreach_mul_(task.weights, 1.0 - (2.0 * job.l2) * lr)
            gradients = torch._foreach_mul(gradients, lr)
            torch._foreach_sub_(parameters, gradients)
            update.add_(1).remainder_(period)
            batch.add_(1).remainder_(job.per_epoch)
        return loss.detach()

    task.new_order()
    replay: Callable[[], Any] = whole
    if device.type == "cuda":
        state = [update, batch, *task.net.state_dict().values()]
        saved = [a.clone() for a in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                whole()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = whole()
        with torch.no_grad():
            for a, value in zip(state, saved, strict=True):
                a.copy_(value)

        def replay_graph() -> Any:
            graph.replay()
            return out

        replay = replay_graph

    def step() -> Any:
        task.new_order()
        loss = replay()
        task.done += 1
        return loss

    return step


def torch_section(section: Section, device: str, make: Callable[[TorchJob], Callable[[], Any]]) -> None:
    """Measure one way to train in PyTorch."""
    torch = imported("torch")
    if device != "cpu":
        if not torch.cuda.is_available():
            raise AbsentError(f"PyTorch {torch.__version__} sees no GPU")
        torch.cuda.set_device(torch.device(device if ":" in device else "cuda:0"))
    torch.set_float32_matmul_precision("highest")  # no TF32
    clock = Clock()
    if device != "cpu":
        clock = Clock(torch.cuda.synchronize, lambda: _torch_event(torch), lambda a, b: a.elapsed_time(b) / 1e3)
    section.result("version", torch.__version__)
    lines = []
    for left, (name, job) in zip((2, 1), jobs(section).items(), strict=True):
        host = job.data()
        task = TorchJob(torch, job, host, device)
        step = make(task)
        first = torch.stack([step().clone() for _ in range(COMPARED)]).cpu().numpy()
        same_job(section, name, first, job.reference(host))

        def run(steps: int, step: Callable[[], Any] = step) -> int:
            for _ in range(steps):
                step()
            return steps

        run(100)
        found = measure(run, clock, min(5.0, 0.5 * section.left() / left))
        section.result(name, found)
        lines.append(f"{name}: {microseconds(found):.0f} us per step")
    section.result("headline", "; ".join(lines))


def _torch_event(torch: Any) -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def torch_eager(section: Section, device: str) -> None:
    """Measure PyTorch as it is usually written."""
    torch_section(section, device, lambda task: eager_step(task, task.loss))


def torch_graph(section: Section, device: str) -> None:
    """Measure PyTorch with a step captured as one CUDA graph."""
    torch_section(section, device, graph_step)


def torch_compile(section: Section, device: str) -> None:
    """Measure PyTorch with gather, standardisation, network and loss compiled."""
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang", "cl")):
        raise AbsentError("torch.compile needs a C compiler, and none is on the PATH")
    torch_section(section, device, lambda task: eager_step(task, task.torch.compile(task.loss)))


# JAX --------------------------------------------------------------------------------------------------------------


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
                    x = jax.nn.relu((x - mean) * jax.lax.rsqrt(var + EPS) * gamma[k] + beta[k])
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
            shares = np.full(self.chunk, 1.0 - MOMENTUM, np.float32)
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


def jax_device(device: str) -> tuple[Any, Any]:
    """Give JAX and its device.

    Raises
    ------
    AbsentError
        If JAX is not there or sees no GPU.
    """
    jax = imported("jax")
    try:
        found = jax.devices("cpu" if device == "cpu" else "gpu")[int(device.partition(":")[2] or 0)]
    except RuntimeError as error:
        raise AbsentError(f"JAX {jax.__version__} sees no GPU: {error}") from error
    jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
    return jax, found


def jax_scan(section: Section, device: str) -> None:
    """Measure JAX with a scan over an epoch; by the host's clock, as JAX has no events."""
    jax, where = jax_device(device)
    section.result("version", jax.__version__)
    lines = []
    for left, (name, job) in zip((2, 1), jobs(section).items(), strict=True):
        host = job.data()
        task = JaxJob(jax, job, host, where, job.per_epoch)
        same_job(section, name, task.first_losses(), job.reference(host))
        task.run(1)
        found = measure(task.run, Clock(lambda task=task: jax.block_until_ready(task.losses)),
                        min(5.0, 0.5 * section.left() / left))
        section.result(name, found)
        lines.append(f"{name}: {microseconds(found):.0f} us per step")
    section.result("headline", "; ".join(lines))


def jax_vmap(section: Section, device: str) -> None:
    """Measure JAX with many models under vmap, in scans of 50 updates that share their batches."""
    jax, where = jax_device(device)
    section.result("version", jax.__version__)
    job = jobs(section)["3 layers"]
    host = job.data()
    counts, lines = model_counts(section), []
    chunk = min(50, job.per_epoch)
    for k, models in enumerate(counts):
        options = sweep(models)
        task = JaxJob(jax, job, host, where, chunk, options)
        first = task.first_losses()
        if models <= 4:
            same_job(section, f"{models} models", first, job.reference(host, **options))
        found = measure(task.run, Clock(lambda task=task: jax.block_until_ready(task.losses)),
                        min(4.0, 0.4 * section.left() / (len(counts) - k)), 2000)
        found["model_steps_per_second"] = round(1e6 * models / microseconds(found), 1)
        section.result(f"{models} models", found)
        lines.append(f"{models}: {found['model_steps_per_second']:,.0f}")
        del task
    section.result("headline", f"model-steps per second: {', '.join(lines)}")
