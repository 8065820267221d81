"""One run at a time: reading the upstream, feeding the viewers, keeping time, and every way to end."""
