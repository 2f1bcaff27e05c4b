"""Tests read back: may they stand side by side, and what do they add up to? Nothing is computed anew."""
