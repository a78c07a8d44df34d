"""Frozen weights as a device stores them: a trunk and a tail that compute with the stored numbers."""
