"""The Flower ClientApp (app.py)."""
