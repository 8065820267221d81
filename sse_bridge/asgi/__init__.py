"""The edge: HTTP requests in, event streams out, as ASGI."""
