"""One test episode of ProtoNet on glyphs, untrained: what a training step, a test and a prediction are made of."""

import torch

from fsl_cli.data.tasks import Batch
from fsl_cli.experiment.assemble import assemble
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.compose import compose

experiment = assemble(demand_fit(compose(["algo=protonet", "data=glyphs", "way=5", "shot=1"]).values))
algorithm = experiment.learner.algorithm.eval()
[episodes] = experiment.episodes.tasks.gather(Batch("test", seed=0, index=[0, 1, 2, 3]), torch.device("cpu"))

classify = algorithm.adapt(episodes.support)  # of four tasks side by side
logits = classify(episodes.query.x)  # (4, 75, 5)
right = logits.argmax(-1) == episodes.query.y
print(f"{right.double().mean():.1%} of {right.numel()} queries, untrained")
