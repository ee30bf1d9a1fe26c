"""The encoder that sequences, graphs and point clouds share, with heads, losses and outputs."""
