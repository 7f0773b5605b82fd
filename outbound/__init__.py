"""What leaves the bank: texts filled in, webhooks signed, and which addresses may be called."""
