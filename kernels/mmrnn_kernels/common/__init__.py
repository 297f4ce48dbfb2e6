"""Shared pieces of the operators: input checks, gradients, packed rows, tiling, native builds, Triton helpers."""
