"""Model-agnostic meta-learning (Finn et al., ICML 2017), https://arxiv.org/abs/1703.03400

Train an initialisation from which a few gradient steps on the support set give a good classifier: the outer
loss is that of the *adapted* weights on the query set, differentiated through the inner steps (algorithm 2).
"""

from __future__ import annotations

import re
from functools import partial

from torch import Tensor, nn

from fsl_cli.algorithms.across_tasks import exclusiveness, gathered
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import (
    ANY_WAY,
    HeadInit,
    Network,
    classifier,
    demand_way,
    each_query_loss,
    query_loss,
    support_loss,
    task_head,
)
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Natural, Rate, Weight


class MAML(Algorithm):
    """Gradient steps from a learned initialisation of backbone and linear head.

    `inner_lr` is the inner loop's learning rate, `inner_steps` its gradient steps in training and `test_steps`
    those in validation and test. `checkpoint_inner` keeps no graph of the steps but builds it again in the backward
    pass, so that hundreds of steps fit into memory (on a CPU). Parameters whose names match the regular expression
    `frozen` are left alone by the inner loop (by default the norms' scale and shift, as in the authors' code).
    `head_init` is what training begins the head with: "learned" torch's own start, "normal", "xavier" and "small" those
    of the authors' code on Omniglot, miniImageNet and sinusoids, biases 0.
    `exclusive` is the weight of a term over all tasks of a step, of whatever process, against a start that solves them
    without adapting: the squared distance of two tasks' heads shall be `exclusive_ratio` times that of their bodies.
    With `head_init` = "prototypes" this is Proto-MAML: the head of each task starts from its support set's prototypes
    and is no learned parameter, so that any number of classes will do.
    """

    regresses = True
    writes = True

    def __init__(
        self,
        backbone: Backbone,
        way: int | list[int],
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        first_order: bool = False,
        checkpoint_inner: bool = False,
        frozen: str = "norm",
        head_init: HeadInit = "learned",
        exclusive: Weight = 0.0,
        exclusive_ratio: Rate = 2.0,
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.first_order = first_order
        self.checkpoint_inner = checkpoint_inner
        self.adapted = {name for name in self.net.adaptable if not re.search(frozen, name)}
        self.exclusive = exclusive
        self.exclusive_ratio = exclusive_ratio
        self.compares_tasks = exclusive > 0
        parts = {name.startswith("head.") for name in self.adapted}
        if exclusive and len(parts) < 2:
            raise UserError(
                f"algo.exclusive compares how far heads and bodies adapt, and with algo.frozen={frozen} the inner loop "
                "does not adapt both. Type algo.frozen=norm, or algo.exclusive=0."
            )

    def adapt(self, support: Examples) -> Classifier:
        way = demand_way(support, self.net.way, ANY_WAY)
        return classifier(self.net, partial(self._fast_weights, way), support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        learn = partial(self._fast_weights, episodes.classes.shape[1])
        if not self.exclusive:
            return query_loss(self.net, learn, episodes, self.checkpoint_inner)
        losses, fast = each_query_loss(self.net, learn, episodes, self.checkpoint_inner)
        adapted = {name: gathered(fast[name]) for name in self.adapted}
        return losses.mean() + self.exclusive * exclusiveness(adapted, self.exclusive_ratio)

    def _fast_weights(self, way: int, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        parameters = {**parameters, **task_head(net, parameters, support, way)}
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, parameters, self.adapted, steps, sgd(self.inner_lr), self.first_order, self.checkpoint_inner)
