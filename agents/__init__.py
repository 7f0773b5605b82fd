"""The shells that connect the pure deciders to Kafka: `transact`, `perform`, `relay`, `observe`, `project`."""
