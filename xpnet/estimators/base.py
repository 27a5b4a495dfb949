"""What the estimators share: their parameters, training, and the way to a network and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

from ..backend import Array, Device, namespace
from ..nn.layers import BatchNorm, Dropout, Linear, Standardize
from ..nn.losses import Loss, undefined_measures
from ..nn.network import Network
from ..nn.per_model import is_array
from ..nn.sequential import Sequential, mlp
from ..training.trainer import DivergenceError, Trainer
from .conventions import ConvergenceWarning, Estimator, features, same_length, warn
from .epochs import Data, Epochs, hold_out, train
from .parameters import SOLVERS, checked, seed_of

__all__ = ["MLP"]

FEW = 10  # rows give a standard deviation to within a quarter (one sigma); fewer say little of those to come


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
        Scale each feature to mean 0 and variance 1 over the training data: with ``partial_fit`` and ``warm_start``
        those of the first call, which then takes at least 10 samples.
    initializer : Initializer, optional
        Initializer of the weight matrices, ``Xavier()`` by default, as scikit-learn has it.
    solver : {"adam", "adamw", "sgd"} or Optimizer
        The optimiser.
    learning_rate_init : float
        The learning rate.
    momentum : float
        Momentum of the solver "sgd".
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
        Improvements below this are ignored.
    random_state : int, RandomState or Generator, optional
        Seed of the initial weights and the dropout, or what one is drawn from; a fresh one by default.
    order_seed : int
        Seed of the order of the samples and of what is held out. It is apart from ``random_state``, so that
        networks that differ in their initial weights can be trained side by side, on the same batches.
    warm_start : bool
        Have ``fit`` continue with ``network_``, from the update at which it was kept. ``dropout``, ``l2``, rates and
        the like may be changed in between; what the arrays of the network and the solver depend on may not. With
        ``early_stopping`` the network is kept until another has a better score on what is held out.
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
        """Train a network, or continue with the one that there is, with ``warm_start``.

        An error leaves the estimator as it was before. Ctrl-C ends training with a warning, and ``fit`` returns with
        the network so far, as in scikit-learn: that of the last update, or with ``early_stopping`` of the best score.

        Parameters
        ----------
        X : array, list of lists or data frame, of shape (n, features)
            Finite real numbers. The network computes in float32 where X is float32, float16 or an integer of at
            most 16 bits, else in float64. A memory-mapped file is read batch by batch, and never copied.
        y : array or list of shape (n,), or (n, outputs) for regression
            The labels.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described, or a parameter differs from the network that a warm start
            continues with.
        DivergenceError
            If the loss or a parameter of the network becomes infinite or NaN; it is a ValueError.
        """
        params = self._checked()
        fresh = not (params["warm_start"] and hasattr(self, "network_"))
        finished = self._train(params, X, y, fresh, params["max_iter"])
        if finished and not self._converged and params["n_iter_no_change"] < params["max_iter"]:
            warn(f"{type(self).__name__} has not converged in max_iter={self.max_iter} passes over the data: raise "
                 "max_iter, or tol", ConvergenceWarning)
        return self

    def _partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        params = self._checked()
        if params["early_stopping"]:
            raise ValueError("partial_fit does not support early_stopping=True, since it makes one pass: set "
                             "early_stopping=False, or call fit")
        self._train({**params, "warm_start": True}, X, y, not hasattr(self, "network_"), 1, classes)
        return self

    def _checked(self) -> dict[str, Any]:
        """Return the parameters as training takes them."""
        return checked(self.get_params(deep=False))

    def _train(self, p: Mapping[str, Any], X: Any, y: Any, fresh: bool, epochs: int, classes: Any = None) -> bool:
        """Train with checked parameters, and return whether training was not interrupted."""
        owner = type(self).__name__
        with self.unchanged_by_errors():
            x, y, outputs = self._prepared(p, X, y, fresh=fresh, classes=classes)
            before = {} if fresh else vars(self).copy()
            data, held_out = self._split(p, x, y)
            self._check_scaling(p, data[1].shape[0], fresh)
            trainer = self._trainer(p, x, outputs, before.get("network_"))
            trainer.start(Device.of(x), x if fresh else None, data[2])
            if before:
                self._continue(trainer, before)
            out = train(trainer, data, held_out, epochs=epochs, tol=p["tol"], patience=p["n_iter_no_change"],
                        begin=before.get("n_iter_", 0), continued=bool(before), label=owner if p["verbose"] else "")
            if out.causes:
                rates = "learning_rate_init" if p["schedule"] is None else "the rates of schedule"
                raise DivergenceError(f"{out.causes[0]}: lower {rates}; the {owner} is as it was before")
            self._take(out, 0, before)
        if out.interrupted:
            warn(f"Training interrupted by user after {self.n_iter_} passes: {owner} keeps the network so far, and fit "
                 "continues with it if warm_start=True", UserWarning)
        return not out.interrupted

    def _check_scaling(self, p: Mapping[str, Any], n: int, fresh: bool) -> None:
        """Check that enough rows decide the scaling of the features, if training is to go on with other rows."""
        n = n if fresh else vars(self).get("_scaled_by", FEW)
        if p["standardize"] and p["warm_start"] and n < FEW:
            raise ValueError(f"standardize=True takes the scaling of the features from the first call: expected at "
                             f"least {FEW} samples in it if others follow (partial_fit, warm_start=True), got {n}; "
                             "begin with more, or set standardize=False and scale the features beforehand")
        self._scaled_by = n

    def _continue(self, trainer: Trainer, before: Mapping[str, Any]) -> None:
        """Put a trainer into the state that the network was kept in."""
        known, state = {**before["network_"].arrays, **before["_slots"]}, trainer.state()
        missing = sorted({name.partition(".")[0] for name in state.keys() - known.keys()})
        if missing and (before["n_iter_"] or before["_slots"]):  # a network of from_network's has neither
            raise ValueError(f"solver: expected one that continues from where the last one ended, got {self.solver!r}, "
                             f"which needs its {' and '.join(missing)}: keep the solver, or set warm_start=False and "
                             "call fit to train a new network")
        trainer.restore({name: known.get(name, a) for name, a in state.items()}, before["_step"])

    def _prepared(
        self, p: Mapping[str, Any], X: Any, y: Any, *, fresh: bool, classes: Any = None, only: Array | None = None
    ) -> tuple[Array, Array, int]:
        """Return checked features and labels where training shall take place, and the number of outputs.

        The labels are those of the rows ``only`` of X.
        """
        x = features(self, X, reset=fresh)
        y, outputs = self._labels(y, Device.of(x), fresh=fresh, classes=classes)
        same_length(x if only is None else only, y)
        if p["batch_norm"] and y.shape[0] == 1:
            raise ValueError("batch_norm needs at least 2 samples, got n_samples=1: one sample has no variance")
        where = Device(p["device"]) if p["device"] else Device.of(x)
        return where.asarray(x), where.asarray(y), outputs

    def _split(self, p: Mapping[str, Any], x: Array, y: Array, only: Array | None = None) -> tuple[Data, Data | None]:
        """Return what to train on and what to hold out of features and the labels of their rows ``only``."""
        if not p["early_stopping"]:
            return (x, y, only), None
        device = Device.of(x)
        sides = hold_out(y, p["validation_fraction"], p["order_seed"], classes=self._kind == "classifier")
        with device.activate():
            train_on, validate_on = (
                (x, device.xp.take(y, rows, axis=0), rows if only is None else device.xp.take(only, rows, axis=0))
                for rows in map(device.asarray, sides))
        for measure, why in undefined_measures(self._loss, validate_on[1]).items():
            raise ValueError(f"early_stopping: {measure} on what is held out is not defined, since {why}: raise "
                             "validation_fraction, or change order_seed, or early_stopping=False holds nothing out")
        return train_on, validate_on

    def _trainer(self, p: Mapping[str, Any], x: Array, outputs: int, network: Network | None = None) -> Trainer:
        """Return a trainer for features x, of checked parameters, of which some may be lists over models."""
        names = getattr(self, "feature_names_in_", None)
        architecture = mlp(
            x.shape[1], p["hidden_layer_sizes"], outputs, batch_norm=p["batch_norm"], dropout=p["dropout"],
            standardize=p["standardize"], initializer=p["initializer"],
            feature_names=names if names is not None and len(set(names)) == len(names) else None)  # twice: no names
        if network:
            asked, trained = described(architecture), described(network.architecture)
            if asked != trained:
                differ = [name for name, value in asked.items() if value != trained[name]]
                raise ValueError(
                    f"{type(self).__name__} continues with its network: expected "
                    f"{', '.join(f'{name}={trained[name]!r}' for name in differ)}, got "
                    f"{', '.join(f'{name}={asked[name]!r}' for name in differ)}; set the former, or set "
                    "warm_start=False and call fit to train a new network")
        like = network.arrays[architecture.parameters[0]] if network else x
        return Trainer(
            architecture, optimizer=SOLVERS[p["solver"]](p) if isinstance(p["solver"], str) else p["solver"],
            loss=self._loss, l2=p["l2"], schedule=p["learning_rate_init"] if p["schedule"] is None else p["schedule"],
            batch_size=p["batch_size"],
            seed=p["random_state"] if is_array(p["random_state"]) else seed_of(p["random_state"]),
            order_seed=p["order_seed"], dtype=dtype_for(like), device=Device.of(x), divergence="freeze",
        )

    def _take(self, out: Epochs, model: int, before: Mapping[str, Any]) -> None:
        """Take up what training gave for one model."""
        network = out.networks[model]
        if network is None:
            raise DivergenceError(f"{type(self).__name__}: {out.causes[model]}; lower learning_rate_init")
        self.network_ = network
        self.n_features_in_: int = network.architecture.in_features
        self.loss_curve_: list[float] = [*before.get("loss_curve_", ()), *out.losses[model]]
        self.n_iter_: int = len(self.loss_curve_)
        scores = [*(before.get("validation_scores_") or ()), *out.scores[model]]
        self.best_loss_: float | None = None if scores else min(self.loss_curve_, default=None)
        self.validation_scores_: list[float] | None = scores or None
        self.best_validation_score_: float | None = max(scores, default=None)
        self._converged = out.converged[model]
        self._slots = out.slots[model]
        self._step = out.steps[model]

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
        if network.models:
            raise ValueError("from_network: expected one network, got several: take one with network.member(i)")
        own = {**described(a), "dropout": rates[0] if rates else 0.0}
        made = {name: value for name, value in own.items() if name != "hidden_layer_sizes"}
        same = mlp(a.in_features, own["hidden_layer_sizes"], a.out_features, initializer=linear[0].initializer,
                   feature_names=a.feature_names, **made) if linear else None
        if same is None or same.config() != a.config():
            raise ValueError(f"from_network: expected layers as xpnet.mlp makes them, which an estimator's parameters "
                             f"describe, got {a!r}")
        self = cls(**{**own, "initializer": linear[0].initializer, **params})
        # Running statistics are there, and are not to be replaced by the next batch's.
        self._take(Epochs([[]], [[]], [True], [network], [{}], [1]), 0, {})
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


def described(architecture: Sequential) -> dict[str, Any]:
    """Return the parameters of an estimator that decide which arrays a network has."""
    layers = architecture.layers
    return {
        "hidden_layer_sizes": tuple(layer.out_width for layer in layers if isinstance(layer, Linear))[:-1],
        "batch_norm": any(isinstance(layer, BatchNorm) for layer in layers),
        "standardize": isinstance(layers[0], Standardize),
    }
