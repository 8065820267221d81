"""The MIOSA platform: its address and key, what it runs, and how that is stopped."""
