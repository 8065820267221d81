"""One run at a time: reading the upstream, telling viewers, keeping time, and every way to end."""
