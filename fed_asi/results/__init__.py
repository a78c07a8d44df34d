"""What a run leaves behind: its records, and how they are summed up, drawn and compared."""
