"""The gateway: HTTP in, commands out to Kafka, reads from the tables that the workers hold."""
