"""Multilayer perceptrons on NumPy and CuPy arrays, from one source, with proven gradients."""

from . import datasets
from .backend import Device, DeviceError, OutOfMemoryError
from .callbacks import Callback, JSONLines, Progress
from .history import History
from .initializers import He, Normal, Xavier
from .layers import BatchNorm, Dropout, Layer, Linear, ReLU, Standardize
from .losses import SoftmaxCrossEntropy
from .network import Network, Sequential, mlp
from .optimizers import SGD, Adam, AdamW
from .schedules import Constant, Cosine, CyclicLR, Step
from .training import DivergenceError, Trainer

__version__ = "0.1.0"
__all__ = [
    "SGD", "Adam", "AdamW", "BatchNorm", "Callback", "Constant", "Cosine", "CyclicLR", "Device", "DeviceError",
    "DivergenceError", "Dropout", "He", "History", "JSONLines", "Layer", "Linear", "Network", "Normal",
    "OutOfMemoryError", "Progress", "ReLU", "Sequential", "SoftmaxCrossEntropy", "Standardize", "Step", "Trainer",
    "Xavier", "datasets", "mlp",
]
