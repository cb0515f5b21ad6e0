"""What the models are trained and scored on: windows, split, scaled and batched."""
