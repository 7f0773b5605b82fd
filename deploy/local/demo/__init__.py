"""A day in the bank's life, over HTTP: `make demo`, on the running system or one started for it."""
