"""Where chunks come from: opening streams, and ending the work behind them. The only room that knows httpx."""
