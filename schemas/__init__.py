"""Avro: hand-written schemas, the codec, what was released, and what may be released next."""
