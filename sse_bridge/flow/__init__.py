"""The log of a run, its readers, and what happens when one of them is slow. Free of I/O and of clocks."""
