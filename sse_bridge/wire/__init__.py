"""What bytes mean: splitting, parsing, encoding and mapping event streams. No I/O, no clock, no logger."""
