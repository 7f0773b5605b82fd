"""How Streambank is run: `local/` on this machine, without containers."""
