"""What the experiments share."""

PAPER = "Chen et al. 2025"
