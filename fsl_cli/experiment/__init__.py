"""From settings to a trained and tested run: the only room that knows Lightning.

What a run leaves behind lies in runs/.
"""
