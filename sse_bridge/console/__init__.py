"""The demo: a page, scripts to watch, and the application that serves both."""
