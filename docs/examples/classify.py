"""A run put to use: python classify.py RUN FOLDER FILE..., the folder having one folder of pictures for each class."""

import sys
from pathlib import Path

from fsl_cli import load_run

run, known, *new = sys.argv[1:]
pictures = sorted(Path(known).glob("*/*"))
classify = load_run(run).adapt(pictures, [picture.parent.name for picture in pictures])
for file, probabilities in zip(new, classify(new), strict=True):
    best = int(probabilities.argmax())
    print(f"{file}  {classify.classes[best]}  {probabilities[best]:.1%}")
