"""What the bridge costs, as ratios against other servers in the same run."""
