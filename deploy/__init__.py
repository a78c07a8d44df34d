"""What runs inside the containers of docker-compose.yml: one module per service."""
