"""Plain torch versions: the definition of each operation, on any device, differentiable, any float type."""
