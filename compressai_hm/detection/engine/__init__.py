"""Optimizers, hooks and storage for MMEngine's runner."""
