"""What learners that read a task as a sequence are made of: orders, labels, causal layers, memories. No algorithm."""
