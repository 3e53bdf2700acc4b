"""The gRPC side of the API of the admin side: the same methods, keys and limits as over HTTP. Needs the extra grpc."""
