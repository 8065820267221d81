"""What it costs, as ratios against a peer in the same run."""
