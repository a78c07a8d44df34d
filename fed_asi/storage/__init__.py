"""What is frozen, as a device stores it: a trunk and frozen weights that compute what the stored numbers give."""
