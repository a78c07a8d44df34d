"""Weights as a device stores them: a frozen trunk, what a tail leaves frozen, and what it trains."""
