"""Work over many cases in several processes."""
