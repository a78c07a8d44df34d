"""A fleet file: its settings, their checks, and the devices they describe."""
