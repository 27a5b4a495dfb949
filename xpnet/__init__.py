"""Multilayer perceptrons on NumPy and CuPy arrays, from one source, with proven gradients."""

__version__ = "0.1.0"

from . import datasets
from .backend import Device, DeviceError, OutOfMemoryError
from .callbacks import CSV, BestWeights, Callback, EarlyStopping, JSONLines, Progress, TensorBoard
from .divergence import DivergenceWarning, NotFiniteError
from .estimators import MLPClassifier, MLPRegressor
from .executors import WorkersError
from .history import History
from .initializers import He, Normal, Xavier
from .layers import BatchNorm, Dropout, Layer, Linear, ReLU, Standardize
from .losses import MeanSquaredError, SoftmaxCrossEntropy
from .network import Network
from .optimizers import SGD, Adam, AdamW
from .range_test import LRRange, find_lr
from .refine import Refined, coarse_to_fine
from .results import Ensemble, Sweep
from .runs import Checkpoints, ResumeError
from .schedules import Constant, Cosine, CyclicLR, Step
from .search import GridSearch
from .sequential import Sequential, mlp
from .space import LogUniform, Uniform
from .sweep import sweep
from .training import DivergenceError, Trainer

__all__ = [
    "CSV", "SGD", "Adam", "AdamW", "BatchNorm", "BestWeights", "Callback", "Checkpoints", "Constant", "Cosine",
    "CyclicLR", "Device", "DeviceError", "DivergenceError", "DivergenceWarning", "Dropout", "EarlyStopping",
    "Ensemble", "GridSearch", "He", "History", "JSONLines", "LRRange", "Layer", "Linear", "LogUniform",
    "MLPClassifier", "MLPRegressor", "MeanSquaredError", "Network", "Normal", "NotFiniteError", "OutOfMemoryError",
    "Progress", "ReLU", "Refined", "ResumeError", "Sequential", "SoftmaxCrossEntropy", "Standardize", "Step",
    "Sweep", "TensorBoard", "Trainer", "Uniform", "WorkersError", "Xavier", "coarse_to_fine", "datasets", "find_lr",
    "mlp", "sweep",
]
