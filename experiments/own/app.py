"""The Flower apps that `flwr run .` loads."""

from pathlib import Path

from fed_asi.flower.client import client_app
from fed_asi.flower.server import server_app

client = client_app()
server = server_app(Path(__file__).parent)
