"""What the experiments share."""

PAPER = "energax, after the abstract of Costa & Santos 2025"
