"""Every topic, and who hears what: `catalog` and `subscriptions`."""
