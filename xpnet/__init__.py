"""Multilayer perceptrons on NumPy and CuPy arrays, from one source, with proven gradients."""

from . import datasets
from ._moved import keep as _keep
from ._version import __version__ as __version__
from .backend import Device, DeviceError, OutOfMemoryError
from .estimators import GridSearch, MLPClassifier, MLPRegressor
from .nn.initializers import He, Normal, Xavier
from .nn.layers import BatchNorm, Dropout, Layer, LeakyReLU, Linear, ReLU, Standardize, Tanh
from .nn.losses import MeanSquaredError, SoftmaxCrossEntropy
from .nn.network import Network
from .nn.sequential import Sequential, mlp
from .sweeps.refine import Refined, coarse_to_fine
from .sweeps.results import Ensemble, Sweep
from .sweeps.space import LogUniform, Uniform
from .sweeps.sweep import sweep
from .sweeps.workers import WorkersError
from .training.callbacks import CSV, BestWeights, Callback, EarlyStopping, JSONLines, Progress, TensorBoard
from .training.checkpoints import Checkpoints, ResumeError
from .training.divergence import DivergenceWarning, NotFiniteError
from .training.history import History
from .training.lr_range import LRRange, find_lr
from .training.optimizers import SGD, Adam, AdamW
from .training.schedules import Constant, Cosine, CyclicLR, Step
from .training.trainer import DivergenceError, Trainer

__all__ = [
    "CSV", "SGD", "Adam", "AdamW", "BatchNorm", "BestWeights", "Callback", "Checkpoints", "Constant", "Cosine",
    "CyclicLR", "Device", "DeviceError", "DivergenceError", "DivergenceWarning", "Dropout", "EarlyStopping",
    "Ensemble", "GridSearch", "He", "History", "JSONLines", "LRRange", "Layer", "LeakyReLU", "Linear", "LogUniform",
    "MLPClassifier", "MLPRegressor", "MeanSquaredError", "Network", "Normal", "NotFiniteError", "OutOfMemoryError",
    "Progress", "ReLU", "Refined", "ResumeError", "Sequential", "SoftmaxCrossEntropy", "Standardize", "Step",
    "Sweep", "Tanh", "TensorBoard", "Trainer", "Uniform", "WorkersError", "Xavier", "coarse_to_fine", "datasets",
    "find_lr", "mlp", "sweep",
]
_keep()
