"""Whatever is drawn, in the terminal or in a file: values in, a picture out. No training, no decisions."""
