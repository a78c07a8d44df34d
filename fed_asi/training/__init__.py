"""Training without any notion of a fleet: steps, SGD, evaluation, pretraining."""
