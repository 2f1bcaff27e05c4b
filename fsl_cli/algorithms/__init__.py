"""An algorithm turns support sets into classifiers; one a file.

It receives its backbone; Lightning, data sets and files are not known here.
"""
