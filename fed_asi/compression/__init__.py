"""Make a network keep only what its plan says: its data flow, what trains, what is swapped, and the cut."""
