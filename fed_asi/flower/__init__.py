"""Everything that knows Flower or Ray: messages, workers, executor, simulation."""
