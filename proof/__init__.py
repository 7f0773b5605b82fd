"""The proof that what the tables say follows from the logs, read without the driver."""
