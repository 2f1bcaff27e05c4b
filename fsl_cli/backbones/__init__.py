"""Networks from images to features, one a file; norm.py knows whose statistics normalise.

No algorithm and no data set is known here.
"""
