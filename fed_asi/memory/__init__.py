"""The memory and the work of a training step: measured by a meter, counted from sizes."""
