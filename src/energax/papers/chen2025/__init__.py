"""Chen et al. 2025: bidirectional predictive coding and layer-adaptive learning rates."""
