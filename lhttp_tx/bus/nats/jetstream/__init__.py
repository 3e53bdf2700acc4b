"""The history of a cluster, in streams of NATS JetStream, on the links of the bus."""
