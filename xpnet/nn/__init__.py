"""A network, trained or not: layers, losses, their composition, and its formats."""
