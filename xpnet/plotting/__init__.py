"""Figures of runs, searches, checks and images, drawn with matplotlib from plain host arrays.

Matplotlib is imported when a function draws, and only its `Figure` is used: there is no display and no global
state. Every function returns a figure, and `save` writes it as a PNG that is the same byte for byte for the
same figure.
"""

from .lines import curves, history, save
from .pictures import confusion, images, mistakes, weights
from .training import activations, gradient_check, lr_range, sweep

__all__ = [
    "activations", "confusion", "curves", "gradient_check", "history", "images", "lr_range", "mistakes", "save",
    "sweep", "weights",
]
