"""Joint training, the baseline that MAML's regression is compared with (Finn et al. 2017, section 5.1)

https://arxiv.org/abs/1703.03400
One network is trained on the points of all tasks together, and fine-tuned on a new task's support set. Tasks that
contradict each other, as sinusoids of all phases do, leave it with their mean; meta-learning avoids this.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, support_loss
from fsl_cli.algorithms.over_tasks import mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Natural, Rate


class Joint(Algorithm):
    """Backbone and linear head; `test_steps` gradient steps at `inner_lr` on the support set in validation and test.

    `head_init` as for MAML, but for "prototypes".
    """

    regresses = True
    writes = True

    def __init__(
        self, backbone: Backbone, way: Count, inner_lr: Rate, test_steps: Natural, head_init: Start = "learned"
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.test_steps = test_steps

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fine_tuned, support)

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of the network without adaptation, on the support and query sets of all tasks."""

        def one(net: nn.Module, parameters: Parameters, support: Examples, query: Examples) -> Tensor:
            on_support = task_loss(functional_call(net, parameters, (support.x,)), support.y)
            on_query = task_loss(functional_call(net, parameters, (query.x, support.x)), query.y)
            return (on_support + on_query) / 2

        return mean_loss(self.net, one, dict(self.net.named_parameters()), episodes.support, episodes.query)

    def _fine_tuned(self, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        loss = support_loss(net, support)
        return adapt(loss, parameters, set(parameters), self.test_steps, sgd(self.inner_lr))
