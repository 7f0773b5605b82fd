"""Read models in MongoDB and MySQL, a cache in Redis: filled from the log, rebuilt from it at will."""
