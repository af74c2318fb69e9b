"""Matrices of small numbers, and how they are multiplied."""

from llavakit.kernels.packed import Packed, gather_rows
from llavakit.kernels.twin import matmul

__all__ = ["Packed", "gather_rows", "matmul"]
