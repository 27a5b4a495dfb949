"""Tests of the emulation: ``python -m cpucuda -m pytest <this folder>``."""
