"""Many runs of one command line: grids and searches, and going on with them. What one run does lies in experiment/."""
