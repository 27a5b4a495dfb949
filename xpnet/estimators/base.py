"""What the estimators share: their parameters, training, and the way to a network and back."""

from __future__ import annotations

import inspect
import operator
import secrets
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

from ..backend import Array, Device, namespace
from ..nn.initializers import Xavier
from ..nn.layers import BatchNorm, Dropout, Linear, Standardize
from ..nn.losses import Loss
from ..nn.network import Network
from ..nn.per_model import at_least_1, check_range, is_array
from ..nn.sequential import mlp
from ..training.optimizers import SGD, Adam, AdamW, Optimizer
from ..training.trainer import Trainer
from .conventions import ConvergenceWarning, Estimator, features, same_length, warn
from .epochs import Epochs, hold_out, train

__all__ = ["MLP"]


@dataclass(eq=False, repr=False)
class MLP(Estimator):
    """A multilayer perceptron with scikit-learn's conventions.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Widths of the hidden layers; empty for a linear model.
    batch_norm : bool
        Normalise each hidden layer before its ReLU.
    dropout : float
        Rate of the dropout after each ReLU.
    standardize : bool
        Scale each feature to mean 0 and variance 1 over the training data (of the first ``partial_fit``).
    initializer : Initializer, optional
        Of the weight matrices, ``Xavier()`` by default, as scikit-learn has it.
    solver : {"adam", "adamw", "sgd"} or Optimizer
        The optimiser.
    learning_rate_init : float
        The learning rate.
    momentum : float
        Of the solver "sgd".
    nesterovs_momentum : bool
        Whether "sgd" looks ahead along the velocity.
    schedule : Schedule, optional
        The learning rate of each update, instead of ``learning_rate_init``.
    l2 : float
        Factor of the sum of squared weights that is added to the loss.
    batch_size : int or "auto"
        Samples per update, all where there are fewer; "auto" is 200.
    max_iter : int
        At most so many passes over the data.
    early_stopping : bool
        Hold a part of the data out, stop when the score on it gets no better, and keep the best network.
        Otherwise the loss on the training data is watched, and the last network kept.
    validation_fraction : float
        The part to hold out, of each class alike.
    n_iter_no_change : int
        Stop after more than so many passes in a row without an improvement.
    tol : float
        A smaller improvement is none.
    random_state : int, RandomState or Generator, optional
        Seed of the initial weights and the dropout, or what one is drawn from; a fresh one by default.
    order_seed : int
        Seed of the order of the samples and of what is held out. It is apart from ``random_state``, so that
        networks that differ in their initial weights can be trained side by side, on the same batches.
    warm_start : bool
        ``fit`` goes on with the network of the last ``fit``, not with a new one.
    verbose : bool
        Show a progress bar.
    device : str, optional
        Where to train and predict: "cpu", "cuda", "cuda:1" or "auto". By default where X lies, which is then to
        be the same in ``fit`` and ``predict``. Predictions lie where X does, in any case.
    """

    hidden_layer_sizes: Any = (100,)
    _: KW_ONLY
    batch_norm: bool = False
    dropout: float = 0.0
    standardize: bool = True
    initializer: Any = None
    solver: Any = "adam"
    learning_rate_init: float = 0.001
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    schedule: Any = None
    l2: float = 0.0
    batch_size: Any = "auto"
    max_iter: int = 200
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    tol: float = 1e-4
    random_state: Any = None
    order_seed: int = 0
    warm_start: bool = False
    verbose: bool = False
    device: str | None = None

    _loss: ClassVar[Loss]

    def __init_subclass__(cls) -> None:
        """Describe the parameters in each estimator's documentation too."""
        own, shared = (inspect.cleandoc(text or "") for text in (cls.__doc__, MLP.__doc__))  # as Python 3.13 does
        summary, _, attributes = own.partition("Attributes\n")
        parameters = shared.partition("Parameters\n")[2]
        cls.__doc__ = f"{summary}Parameters\n{parameters.rstrip()}\n\nAttributes\n{attributes}\n"

    def _labels(self, y: Any, home: Device, *, fresh: bool, classes: Any) -> tuple[Array, int]:
        """Return labels as the loss takes them, and the number of outputs, and note what they are."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> Self:
        """Train a network, or go on where there is one and ``warm_start``.

        Parameters
        ----------
        X : array, list of lists or data frame, of shape (n, features)
            Finite real numbers. The network computes in float32 where X is float32, float16 or an integer of at
            most 16 bits, else in float64.
        y : array or list of shape (n,), or (n, outputs) for regression
            The labels.
        """
        fresh = not (self.warm_start and hasattr(self, "network_"))
        at_least_1(type(self).__name__, "max_iter", self.max_iter)
        self._train(X, y, fresh, self.max_iter)
        if not self._converged and self.n_iter_no_change < self.max_iter:
            warn(f"{type(self).__name__} has not converged in max_iter={self.max_iter} passes over the data: raise "
                 "max_iter, or tol", ConvergenceWarning)
        return self

    def _partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: it makes one pass")
        self._train(X, y, not hasattr(self, "network_"), 1, classes)
        return self

    def _train(self, X: Any, y: Any, fresh: bool, epochs: int, classes: Any = None) -> None:
        x, y, outputs = self._prepared(X, y, fresh=fresh, classes=classes)
        before = {} if fresh else vars(self).copy()
        if fresh:
            vars(self).pop("network_", None)  # should training fail, there is none
        trainer = self._trainer(x, outputs, before.get("network_"))
        data, held_out = self._split(x, y)
        trainer.start(Device.of(x), data[0])
        if before:
            kept = {**before["network_"].arrays, **before["_slots"]}
            trainer.restore({name: kept.get(name, a) for name, a in trainer.state().items()}, before["_step"])
        out = train(trainer, data, held_out, epochs=epochs, tol=self.tol, patience=self.n_iter_no_change,
                    begin=before.get("n_iter_", 0),
                    label=type(self).__name__ if self.verbose else "")
        self._take(out, 0, before)
        self._slots: dict[str, Array] = {name: a for name, a in trainer.state().items() if name not in trainer.arrays}
        self._step = trainer.step

    def _prepared(self, X: Any, y: Any, *, fresh: bool, classes: Any = None) -> tuple[Array, Array, int]:
        """Return checked features and labels where training shall take place, and the number of outputs."""
        check_range(type(self).__name__, "tol", self.tol)
        at_least_1(type(self).__name__, "n_iter_no_change", self.n_iter_no_change)
        x = features(self, X, reset=fresh)
        y, outputs = self._labels(y, Device.of(x), fresh=fresh, classes=classes)
        same_length(x, y)
        if self.batch_norm and x.shape[0] == 1:
            raise ValueError("batch_norm needs at least 2 samples, got n_samples=1: one sample has no variance")
        where = Device(self.device) if self.device else Device.of(x)
        return where.asarray(x), where.asarray(y), outputs

    def _split(self, x: Array, y: Array) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
        if not self.early_stopping:
            return (x, y), None
        classes = self._kind == "classifier"
        return hold_out(x, y, self.validation_fraction, self.order_seed, classes=classes)

    def _trainer(self, x: Array, outputs: int, network: Network | None = None, **swept: Any) -> Trainer:
        """Make a trainer for features x, of ``swept`` parameters (perhaps lists over models) before one's own."""
        p = {**self.get_params(), **swept}
        hidden, names = p["hidden_layer_sizes"], getattr(self, "feature_names_in_", None)
        architecture = network.architecture if network else mlp(
            x.shape[1], tuple(hidden) if is_array(hidden) else (hidden,), outputs,
            batch_norm=p["batch_norm"], dropout=p["dropout"], standardize=p["standardize"],
            initializer=p["initializer"] or Xavier(),
            feature_names=names if names is not None and len(set(names)) == len(names) else None,  # twice: no names
        )
        like = network.arrays[architecture.parameters[0]] if network else x
        return Trainer(
            architecture, optimizer=_optimizer(p), loss=self._loss, l2=p["l2"],
            schedule=p["learning_rate_init"] if p["schedule"] is None else p["schedule"],
            batch_size=200 if p["batch_size"] == "auto" else p["batch_size"],
            seed=p["random_state"] if "random_state" in swept else seed_of(p["random_state"]),
            order_seed=p["order_seed"], dtype=dtype_for(like), device=Device.of(x),
            divergence="freeze" if swept else "raise",
        )

    def _take(self, out: Epochs, model: int, before: Mapping[str, Any]) -> None:
        """Take up what training gave for one model."""
        network = out.networks[model]
        if network is None:
            raise ValueError("a model that diverged has no network")
        self.network_ = network
        self.n_features_in_: int = network.architecture.in_features
        self.loss_curve_: list[float] = [*before.get("loss_curve_", ()), *out.losses[model]]
        self.n_iter_: int = len(self.loss_curve_)
        self.best_loss_: float | None = None if out.scores[model] else min(self.loss_curve_, default=None)
        self.validation_scores_: list[float] | None = out.scores[model] or None
        self.best_validation_score_: float | None = max(out.scores[model], default=None)
        self._converged = out.converged[model]
        self._slots = {}
        self._step = 0

    def _outputs(self, X: Any, method: str, then: Callable[[Array], Array] = lambda outputs: outputs) -> Array:
        """Return what ``then`` makes of the network's outputs, where X lies."""
        self.check_fitted()
        x = features(self, X, reset=False)
        home, here = Device.of(x), self.network_.device
        if home != here:
            if self.device is None:
                raise ValueError(
                    f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace and the same "
                    f"device as those passed to fit(): got {home.name}, expected {here.name}. Move them, or set "
                    "device= to have them moved"
                )
            x = here.asarray(x)
        with here.activate():
            return home.asarray(then(self.network_(x)))

    @classmethod
    def _from_network(cls, network: Network, **params: Any) -> Self:
        """Make an estimator of a network, with the parameters that describe its layers."""
        a = network.architecture
        linear = [layer for layer in a.layers if isinstance(layer, Linear)]
        rates = [layer.rate for layer in a.layers if isinstance(layer, Dropout)]
        hidden = tuple(layer.out_width for layer in linear[:-1])
        described: dict[str, Any] = {
            "batch_norm": any(isinstance(layer, BatchNorm) for layer in a.layers),
            "dropout": rates[0] if rates else 0.0, "standardize": isinstance(a.layers[0], Standardize),
            "initializer": linear[0].initializer if linear else None,
        }
        if network.models:
            raise ValueError("from_network: expected one network, got several: take one with network.member(i)")
        named = {**described, "feature_names": a.feature_names}
        same = mlp(a.in_features, hidden, a.out_features, **named) if linear else None
        if same is None or same.config() != a.config():
            raise ValueError(f"from_network: expected layers as xpnet.mlp makes them, which an estimator's parameters "
                             f"describe, got {a!r}")
        self = cls(**{"hidden_layer_sizes": hidden, **described, **params})
        self._take(Epochs([[]], [[]], [True], [network], {}), 0, {})
        self._step = 1  # running statistics are there, and are not to be replaced by the next batch's
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network's device out of a pickle: arrays know where they are."""
        state = vars(self).copy()
        if "network_" in state:
            network = state.pop("network_")
            state["_network"] = network.architecture, network.arrays
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the network again."""
        state = dict(state)
        if "_network" in state:
            state["network_"] = Network(*state.pop("_network"))
        vars(self).update(state)


def dtype_for(x: Array) -> str:
    """Return the dtype to compute in: what NumPy promotes x and float32 to."""
    xp = namespace(x)
    if xp.isdtype(x.dtype, "bool"):
        return "float32"
    if xp.isdtype(x.dtype, "integral"):
        return "float32" if xp.iinfo(x.dtype).bits <= 16 else "float64"
    return "float32" if xp.finfo(x.dtype).bits <= 32 else "float64"


def seed_of(random_state: Any) -> int:
    """Return a seed for a ``random_state`` as scikit-learn takes it."""
    if random_state is None:
        return secrets.randbits(32)
    for draw in ("integers", "randint"):  # of a Generator, of a RandomState
        if hasattr(random_state, draw):
            return int(getattr(random_state, draw)(2**31 - 1))
    return operator.index(random_state)


def _optimizer(p: Mapping[str, Any]) -> Optimizer:
    if not isinstance(p["solver"], str):
        given: Optimizer = p["solver"]
        return given
    known: dict[str, Any] = {
        "adam": Adam, "adamw": AdamW, "sgd": lambda: SGD(p["momentum"], nesterov=p["nesterovs_momentum"])}
    if p["solver"] not in known:
        raise ValueError(f"solver: expected {', '.join(map(repr, known))} or an optimizer, got {p['solver']!r}")
    made: Optimizer = known[p["solver"]]()
    return made
