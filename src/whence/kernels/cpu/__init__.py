"""Fused versions for float32 tensors on a CPU (Numba), compiled when first called and kept on disk."""
