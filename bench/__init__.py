"""Measurements. Each program prints ratios to a floor or a peer that ran beside it in the same run."""
