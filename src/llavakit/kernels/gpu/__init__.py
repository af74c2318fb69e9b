"""Kernels of a GPU, in Triton: a token of an answer through the whole decoder, reading each weight once."""
