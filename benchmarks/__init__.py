"""Benchmarks: forecasting models on standard datasets, through tsl and Hydra."""
