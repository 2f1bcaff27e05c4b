"""A network that minimises: how it moves weights and is trained, and the problems it is given."""
