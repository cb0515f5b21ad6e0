"""Functions behind the layers: sums along edges, the best sources, attention. Tensors in, tensors out."""
