"""The bus of a cluster: the only folder that knows nats-py and asyncio."""
