"""The history of a cluster. It is in streams of NATS JetStream, and uses the links of the bus."""
