"""Table declarations and errors."""
