"""PyTorch in the comparison: eager (default and fused SGD), compiled, one model after another, and under vmap."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from _cpu_job import EPS, KEPT, Data, Job
from torch.nn.functional import cross_entropy, linear, relu

torch.set_float32_matmul_precision("highest")


class Common:
    """The data, the order of the batches, and the names of the arrays."""

    cost = False

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.done, self.epoch = job, 0, -1
        self.x, self.y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        self.mean, self.inverse = torch.from_numpy(data.mean), torch.from_numpy(data.inverse)
        self.found: list[Any] = []

    def rows(self, t: int) -> Any:
        """Return the examples of update ``t``."""
        epoch, i = divmod(t, self.job.per_epoch)
        if epoch != self.epoch:
            self.order, self.epoch = torch.from_numpy(self.job.order(epoch)), epoch
        return self.order[i]

    def batch(self, rows: Any) -> tuple[Any, Any]:
        """Gather and standardise."""
        return (self.x[rows].float() - self.mean) * self.inverse, self.y[rows]

    def step(self) -> Any:
        """Make one update, and give the loss (*models)."""
        raise NotImplementedError

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates."""
        began = time.perf_counter()
        self.found = []
        for _ in range(steps):
            self.found.append(self.step())
            self.done += 1
        return steps, time.perf_counter() - began

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps, *models)."""
        return torch.stack(self.found).numpy()


def network(job: Job, *, running: bool = True) -> Any:
    """Return the job's network with its initial weights."""
    layers: list[Any] = []
    for k, w in enumerate(job.weights()):
        dense = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(w.T))
            dense.bias.zero_()
        layers.append(dense)
        if k < len(job.hidden):
            if job.batch_norm:
                layers.append(torch.nn.BatchNorm1d(w.shape[1], EPS, 1.0 - KEPT, track_running_stats=running))
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers).train()


def named(net: Any) -> dict[str, Any]:
    """Return a network's arrays under the names of the job."""
    found: dict[str, Any] = {}
    dense = [m for m in net if isinstance(m, torch.nn.Linear)]
    norms = [m for m in net if isinstance(m, torch.nn.BatchNorm1d)]
    for k, layer in enumerate(dense, start=1):
        found |= {f"W{k}": layer.weight.detach().T, f"b{k}": layer.bias.detach()}
    for k, layer in enumerate(norms, start=1):
        found |= {f"gamma{k}": layer.weight.detach(), f"beta{k}": layer.bias.detach(), f"mean{k}": layer.running_mean,
                  f"var{k}": layer.running_var}
    return {name: np.array(a) for name, a in found.items()}


class Eager(Common):
    """The usual loop: modules, autograd, ``torch.optim.SGD`` with weight decay 2 * l2 for the weight matrices.

    Parameters
    ----------
    job, data : Job, Data
        What to train, and on what; of a sweep, one model after the other.
    fused : bool, optional
        Passed to SGD.
    compiled : bool
        Compile the gather, the standardisation, the network and the loss (and so the pass back).
    """

    def __init__(self, job: Job, data: Data, fused: bool | None = None, compiled: bool = False) -> None:
        super().__init__(job, data)
        self.models = []
        for l2 in job.penalties:
            net = network(job)
            decayed = [m.weight for m in net if isinstance(m, torch.nn.Linear)]
            others = [p for p in net.parameters() if not any(p is w for w in decayed)]
            groups = [{"params": decayed, "weight_decay": 2.0 * l2}, {"params": others}]
            self.models.append((net, torch.optim.SGD(groups, lr=0.1, fused=fused)))
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def _loss(self, net: Any, rows: Any) -> Any:
        x, y = self.batch(rows)
        return cross_entropy(net(x), y)

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates of every model."""
        began = time.perf_counter()
        self.found = []
        for net, optimizer in self.models:
            losses = []
            for t in range(self.done, self.done + steps):
                for group in optimizer.param_groups:
                    group["lr"] = self.job.rate(t)
                optimizer.zero_grad(set_to_none=True)
                loss = self.loss(net, self.rows(t))
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            self.found.append(torch.stack(losses))
        self.done += steps
        return steps, time.perf_counter() - began

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps, *models)."""
        return torch.stack(self.found, -1).numpy() if self.job.models else self.found[0].numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        each = [named(net) for net, _ in self.models]
        return {name: np.stack([one[name] for one in each]) for name in each[0]} if self.job.models else each[0]


def forward(arrays: dict[str, Any], x: Any, job: Job) -> tuple[Any, dict[str, Any]]:
    """Return the network's outputs, and the batch's statistics by the names of the running ones, as functions do."""
    batch = {}
    for k in range(1, len(job.hidden) + 2):
        x = linear(x, arrays[f"W{k}"], arrays[f"b{k}"])
        if k <= len(job.hidden):
            if job.batch_norm:
                var, mean = torch.var_mean(x, 0, correction=0)
                batch |= {f"mean{k}": mean, f"var{k}": var}
                x = (x - mean) * torch.rsqrt(var + EPS) * arrays[f"gamma{k}"] + arrays[f"beta{k}"]
            x = relu(x)
    return x, batch


class Compiled(Common):
    """The whole update as one compiled function: gather, loss, gradients, running statistics and SGD, in place."""

    def __init__(self, job: Job, data: Data) -> None:
        super().__init__(job, data)
        self.parameters = {name: torch.from_numpy(a.T.copy()) for name, a in job.start().items()}
        widths = [(f"{name}{k}", w, value) for k, w in enumerate(job.hidden, start=1)
                  for name, value in (("mean", 0.0), ("var", 1.0)) if job.batch_norm]
        self.running = {name: torch.full((w,), value) for name, w, value in widths}
        self.compiled = torch.compile(self._update, dynamic=False)

    def _update(self, rows: Any, lr: Any) -> Any:
        x, y = self.batch(rows)

        def loss_of(parameters: dict[str, Any]) -> tuple[Any, Any]:
            outputs, batch = forward(parameters, x, self.job)
            return cross_entropy(outputs, y), batch

        gradients, (loss, batch) = torch.func.grad_and_value(loss_of, has_aux=True)(self.parameters)
        for name, w in self.parameters.items():
            decay = 2.0 * self.job.penalties[0] if name.startswith("W") else 0.0
            w.sub_(lr * (gradients[name] + decay * w))
        for name, running in self.running.items():
            running.lerp_(batch[name], 1.0 - KEPT)
        return loss

    def step(self) -> Any:
        """Make one update."""
        return self.compiled(self.rows(self.done), torch.tensor(self.job.rate(self.done)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        return {name: a.numpy().T for name, a in (self.parameters | self.running).items()}


class Vmap(Common):
    """A sweep under ``torch.func.vmap`` over stacked modules; batch norm keeps no running statistics, as it cannot."""

    def __init__(self, job: Job, data: Data, compiled: bool = False) -> None:
        super().__init__(job, data)
        nets = [network(job, running=False) for _ in job.penalties]
        self.parameters, self.buffers = torch.func.stack_module_state(nets)
        self.parameters = {name: p.detach() for name, p in self.parameters.items()}
        self.net, self.l2 = nets[0].to("meta"), torch.tensor(job.penalties)
        self.shrink = {name for name, p in self.parameters.items() if p.ndim == 3}
        self.update = torch.compile(self._update, dynamic=False) if compiled else self._update

    def _update(self, rows: Any, lr: Any) -> Any:
        x, y = self.batch(rows)

        def loss_of(parameters: Any, buffers: Any) -> Any:
            return cross_entropy(torch.func.functional_call(self.net, (parameters, buffers), (x,)), y)

        each = torch.func.vmap(torch.func.grad_and_value(loss_of))
        gradients, losses = each(self.parameters, self.buffers)
        for name, w in self.parameters.items():
            if name in self.shrink:
                w.mul_((1.0 - 2.0 * lr * self.l2)[:, None, None])
            w.sub_(lr * gradients[name])
        return losses

    def step(self) -> Any:
        """Make one update of all models."""
        return self.update(self.rows(self.done), torch.tensor(self.job.rate(self.done)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the trained arrays by name."""
        found, k = {}, 0
        for i, layer in enumerate(self.net):
            k += isinstance(layer, torch.nn.Linear)
            kinds = {torch.nn.Linear: ("W", "b"), torch.nn.BatchNorm1d: ("gamma", "beta")}.get(type(layer))
            if kinds:
                found[f"{kinds[0]}{k}"] = self.parameters[f"{i}.weight"].mT if kinds[0] == "W" else (
                    self.parameters[f"{i}.weight"])
                found[f"{kinds[1]}{k}"] = self.parameters[f"{i}.bias"]
        return {name: a.numpy() for name, a in found.items()}
