"""Output for people: pictures of scans, plots, tables and the HTML report.

It knows arrays, labels and plain data, and no command.
"""
