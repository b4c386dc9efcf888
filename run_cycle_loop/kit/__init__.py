"""What could be a library of its own: clock, processes, files, durations, redaction. Nothing here knows a cycle."""
