"""The same job in PyTorch: eager, captured as one CUDA graph, and with torch.compile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from _gpu_job import BATCH_NORM, COMPARED, Clock, Job, imported, jobs, measure, per_step, same_job
from _gpu_section import AbsentError, Section


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
                norm = torch.nn.BatchNorm1d(w.shape[1], eps=BATCH_NORM.eps, momentum=1.0 - BATCH_NORM.momentum)
                layers += [norm, torch.nn.ReLU()]
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
    """Return a step as PyTorch's own optimiser makes it; its weight decay is added to the gradient as 2 * l2 * W."""
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
    """Return a step as one captured CUDA graph: which batch and which rate are counters on the device."""
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
    torch = imported(section, "torch")
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

        run(2 if section.small else 100)
        found = measure(section, run, clock, min(5.0, 0.5 * section.left() / left))
        section.result(name, found)
        lines.append(per_step(name, found))
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
