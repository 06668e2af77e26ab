"""Fused versions for float32 tensors on a GPU (Triton); modules are imported, and compile, when first used."""
