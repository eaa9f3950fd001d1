"""Empty: a pattern of file names finds it."""
