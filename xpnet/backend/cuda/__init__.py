"""CUDA sources and what launches them."""
