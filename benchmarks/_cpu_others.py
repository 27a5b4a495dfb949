"""scikit-learn, Keras (on JAX) and Thinc in the comparison."""

from __future__ import annotations

import time
import warnings
from typing import Any, ClassVar

import numpy as np
from _cpu_job import EPS, KEPT, Data, Job


class Common:
    """The data, and the batches with images standardised by NumPy."""

    cost = False

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.data, self.done, self.epoch = job, data, 0, -1
        self.found: list[float] = []

    def rows(self, t: int) -> np.ndarray:
        """Return the examples of update ``t``."""
        epoch, i = divmod(t, self.job.per_epoch)
        if epoch != self.epoch:
            self.order, self.epoch = self.job.order(epoch), epoch
        row: np.ndarray = self.order[i]
        return row

    def batch(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Gather and standardise."""
        rows = self.rows(t)
        x = self.data.x[rows].astype(np.float32)
        x -= self.data.mean
        x *= self.data.inverse
        return x, self.data.y[rows]

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps,)."""
        return np.array(self.found)


class ScikitLearn(Common):
    """``MLPClassifier.partial_fit``, a minibatch at a time, without momentum; the rate is set before each call.

    Its penalty is ``alpha / 2 / batch size`` times the squared weights, and it has no batch norm.
    """

    cost = True
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, job: Job, data: Data) -> None:
        from sklearn.neural_network import MLPClassifier

        super().__init__(job, data)
        if job.batch_norm:
            raise ValueError("scikit-learn has no batch norm")
        warnings.filterwarnings("ignore", module="sklearn")  # that so few epochs have not converged
        self.peer = MLPClassifier(job.hidden, solver="sgd", alpha=2.0 * job.penalties[0] * job.size, momentum=0.0,
                                  batch_size=job.size, nesterovs_momentum=False, shuffle=False, **self.options)
        self.peer.partial_fit(*self.batch(0), classes=np.arange(job.classes))  # makes its arrays
        for k, w in enumerate(job.weights()):
            self.peer.coefs_[k][...] = w
            self.peer.intercepts_[k][...] = 0.0

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates."""
        began = time.perf_counter()
        self.found = []
        for _ in range(steps):
            self.peer._optimizer.learning_rate = self.job.rate(self.done)
            self.peer.partial_fit(*self.batch(self.done))
            self.found.append(self.peer.loss_)
            self.done += 1
        return steps, time.perf_counter() - began

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        W, b = self.peer.coefs_, self.peer.intercepts_
        return {f"{name}{k}": a for name, each in (("W", W), ("b", b)) for k, a in enumerate(each, start=1)}


class ScikitLearnFit(ScikitLearn):
    """``MLPClassifier.fit``, which does less than the job: a rate per epoch, and images standardised beforehand.

    They take 4 bytes a pixel. Whole epochs are shuffled by scikit-learn; what is less than one is not.
    """

    constant = True
    options: ClassVar[dict[str, Any]] = {"warm_start": True, "max_iter": 1}

    def __init__(self, job: Job, data: Data) -> None:
        super().__init__(job, data)
        order = job.order(0).ravel()
        self.x, self.y = data.x[order].astype(np.float32), data.y[order]
        self.x -= data.mean
        self.x *= data.inverse

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates, an epoch (or less) per call of ``fit``."""
        began, made = time.perf_counter(), 0
        self.found = []
        while made < steps:
            now = min(steps - made, self.job.per_epoch)
            rows = slice(0, now * self.job.size)
            self.peer.set_params(learning_rate_init=self.job.rate(self.done + now // 2),
                                 shuffle=now == self.job.per_epoch)
            self.peer.fit(self.x[rows], self.y[rows])
            self.found.append(self.peer.loss_)
            made += now
            self.done += now
        return made, time.perf_counter() - began


class Keras(Common):
    """``keras.Model.fit`` on JAX, compiled; the batches come standardised from a ``PyDataset``.

    Its loss includes the penalty, and is the mean over a call.
    """

    cost = True

    def __init__(self, job: Job, data: Data) -> None:
        import keras

        super().__init__(job, data)
        low, high, half = job.lowest, job.highest, job.half

        class Cycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc, name-defined]
            def __call__(self, t: Any) -> Any:
                t = keras.ops.cast(t, "float32")
                return low + (high - low) * (1.0 - keras.ops.abs(t % (2 * half) / half - 1.0))

        class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
            first, steps = 0, 0

            def __len__(self) -> int:
                return self.steps

            def __getitem__(own, i: int) -> tuple[np.ndarray, np.ndarray]:
                return self.batch(own.first + i)

        layers: list[Any] = [keras.Input((job.inputs,))]
        self.dense, self.norms = [], []
        for k, width in enumerate(job.widths[1:]):
            self.dense.append(keras.layers.Dense(width, kernel_regularizer=keras.regularizers.L2(job.penalties[0])))
            layers.append(self.dense[-1])
            if k < len(job.hidden):
                if job.batch_norm:
                    self.norms.append(keras.layers.BatchNormalization(momentum=KEPT, epsilon=EPS))
                    layers.append(self.norms[-1])
                layers.append(keras.layers.ReLU())
        self.model, self.batches = keras.Sequential(layers), Batches()
        for layer, w in zip(self.dense, job.weights(), strict=True):
            layer.set_weights([w, np.zeros(w.shape[1], np.float32)])
        self.model.compile(keras.optimizers.SGD(Cycle()), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                           steps_per_execution=5)  # faster than 1, and no slower than 25

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates."""
        began = time.perf_counter()
        self.batches.first, self.batches.steps = self.done, steps
        history = self.model.fit(self.batches, epochs=1, verbose=0, shuffle=False)
        self.found = history.history["loss"]
        self.done += steps
        return steps, time.perf_counter() - began

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        found = {f"{name}{k}": a for k, layer in enumerate(self.dense, start=1)
                 for name, a in zip(("W", "b"), layer.get_weights(), strict=True)}
        return found | {f"{name}{k}": a for k, layer in enumerate(self.norms, start=1)
                        for name, a in zip(("gamma", "beta", "mean", "var"), layer.get_weights(), strict=True)}


class Thinc(Common):
    """Thinc's layers and SGD, with an optimiser of their own for the weight matrices, which alone are penalised.

    It has no batch norm: here is one, written as Thinc's own layers are.
    """

    def __init__(self, job: Job, data: Data) -> None:
        from thinc import api

        super().__init__(job, data)
        weights = job.weights()
        self.norms = [_thinc_norm(api.Model, width) for width in job.hidden] if job.batch_norm else []
        hidden = [(api.Linear if job.batch_norm else api.Relu)(w.shape[1], w.shape[0]) for w in weights[:-1]]
        self.dense = [*hidden, api.Softmax(*weights[-1].shape[::-1])]
        pairs = [layer for pair in zip(hidden, self.norms, strict=True) for layer in pair] if self.norms else hidden
        self.model = api.chain(*pairs, self.dense[-1])
        self.model.initialize()
        for layer, w in zip(self.dense, weights, strict=True):
            layer.set_param("W", np.ascontiguousarray(w.T))
            layer.set_param("b", np.zeros(w.shape[1], np.float32))
        rate = api.Schedule("cycle", lambda schedule, step, **options: job.rate(step))
        plain = {"grad_clip": 0.0, "use_averages": False, "L2_is_weight_decay": False}
        self.decayed = api.SGD(rate, L2=2.0 * job.penalties[0], **plain)
        self.others = api.SGD(rate, L2=0.0, **plain)
        self.loss = api.CategoricalCrossentropy()

    def run(self, steps: int) -> tuple[int, float]:
        """Make so many updates."""
        began = time.perf_counter()
        self.found = []
        for _ in range(steps):
            x, y = self.batch(self.done)
            guesses, backprop = self.model.begin_update(x)
            backprop(self.loss.get_grad(guesses, y))
            self.found.append(float(-np.log(guesses[np.arange(len(y)), y]).mean()))
            for node in self.model.walk():
                for name in node.param_names:
                    rule = self.decayed if name == "W" else self.others
                    node.set_param(name, rule((node.id, name), node.get_param(name), node.get_grad(name))[0])
            self.decayed.step_schedules()
            self.others.step_schedules()
            self.done += 1
        return steps, time.perf_counter() - began

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        found = {f"{name}{k}": layer.get_param(name).T for k, layer in enumerate(self.dense, start=1)
                 for name in ("W", "b")}
        for k, layer in enumerate(self.norms, start=1):
            found |= {f"gamma{k}": layer.get_param("G"), f"beta{k}": layer.get_param("b")}
            found |= {f"{name}{k}": layer.attrs[name] for name in ("mean", "var")}
        return found


def _thinc_norm(model_class: Any, width: int) -> Any:
    """Return a layer of Thinc's kind: batch norm, then ReLU."""

    def forward(model: Any, x: np.ndarray, is_train: bool) -> tuple[np.ndarray, Any]:
        gain, n = model.get_param("G"), len(x)
        mean, var = x.mean(axis=0), x.var(axis=0)
        for name, batch in (("mean", mean), ("var", var)):
            model.attrs[name] = KEPT * model.attrs[name] + (1.0 - KEPT) * batch
        inverse = 1.0 / np.sqrt(var + EPS)
        normal = (x - mean) * inverse
        y = model.ops.relu(normal * gain + model.get_param("b"))

        def backprop(dy: np.ndarray) -> np.ndarray:
            dy = model.ops.backprop_relu(dy, y)
            dgain, dshift = (dy * normal).sum(axis=0), dy.sum(axis=0)
            model.inc_grad("G", dgain)
            model.inc_grad("b", dshift)
            return gain * inverse * (dy - dshift / n - normal * (dgain / n))

        return y, backprop

    start = {"G": np.ones(width, np.float32), "b": np.zeros(width, np.float32)}
    running = {"mean": np.zeros(width, np.float32), "var": np.ones(width, np.float32)}
    return model_class("batch_norm", forward, dims={"nO": width, "nI": width}, params=start, attrs=running)
