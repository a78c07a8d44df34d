"""Many runs as one comparison: a grid of fleets, its runs, the statistics over seeds, and how they are shown."""
