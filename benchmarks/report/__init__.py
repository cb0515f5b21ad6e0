"""Results as raw lines, and as tables."""
