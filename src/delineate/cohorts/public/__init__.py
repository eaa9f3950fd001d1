"""Public data sets: a catalogue and the download."""
