"""Patterns that keep a failing neighbour from failing us: pure cores with a thin edge."""
