"""The Flower ClientApp: it translates messages and delegates to fed_asi."""
