"""What bytes mean: splitting, parsing, encoding and mapping event streams. Pure computation: time and bytes come in."""
