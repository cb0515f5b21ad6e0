"""Speed and memory of the layers and models, as ratios measured within one run."""
