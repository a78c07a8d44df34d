"""What a training step keeps and costs: measured by a meter, counted from sizes."""
