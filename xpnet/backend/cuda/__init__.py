"""Fused CUDA kernels, and what launches them: an update of a whole network in a few launches.

The sources are the files ``.cu``; ``build`` compiles them, ``launch`` lays out launches whose arguments need no more
work, ``rows`` and ``step`` are what training calls.
"""
