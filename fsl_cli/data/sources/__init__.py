"""One data set a file: how it is found, checked and split. What several share lies in data/."""
