"""Federated on-device learning, simulated with a memory budget for every device."""
