"""Many runs as one comparison: a grid of fleets, its runs, statistics over seeds, and reports."""
