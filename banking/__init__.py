"""What banks tell each other in files: statements in, instructions out. Knows nothing of services."""
