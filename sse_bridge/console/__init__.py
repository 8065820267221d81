"""What pages are made of: modules for the browser, and the demo that uses them."""

from .files import STATIC, static_files

__all__ = ["STATIC", "static_files"]
