"""Runs shared by several workers through Redis Streams (the extra `redis`). Importing this room imports no `redis`."""
