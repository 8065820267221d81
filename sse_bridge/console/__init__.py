"""The demo: a page, a script to watch, and the application that brings them together."""
