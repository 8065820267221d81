"""Where chunks come from: execs, how they are opened, and how they are stopped. The only room that knows httpx."""
