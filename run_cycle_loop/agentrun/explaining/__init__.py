"""What will become of a run, told before anything starts, as plain data; how that looks is ``report``'s."""
