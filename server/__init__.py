"""The Flower ServerApp and its strategy: they translate messages and delegate to fed_asi."""
