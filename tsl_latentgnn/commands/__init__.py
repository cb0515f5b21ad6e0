"""The commands of ``tsl-latentgnn``, one in each module."""
