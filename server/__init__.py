"""The Flower ServerApp (app.py)."""
