"""Alternatives to the bridge, each written the way its users would write it."""
