"""The MIOSA platform: its address and key, the commands it runs, and the way to end them."""
