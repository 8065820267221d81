"""What is kept, and for whom: the log of a run, its readers, and what happens when one is slow. No I/O, no clock."""
