"""From a calibration batch to the best plan for a budget."""
