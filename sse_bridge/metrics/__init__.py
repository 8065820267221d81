"""Metrics and traces of bridges: `prometheus` and `opentelemetry`, each with an extra of its own.

The package imports neither by itself.
"""
