"""Training arithmetic that knows no fleet: steps, SGD, evaluation, pretraining."""
