"""What fsl doctor and fsl bench find out about this machine. Nothing here belongs to a run."""
