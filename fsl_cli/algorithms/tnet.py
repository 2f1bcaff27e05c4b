"""T-nets (Lee and Choi, ICML 2018), https://arxiv.org/abs/1801.05558

Behind each layer stands a square matrix T that the inner loop leaves alone: T (W x + b). A gradient step on W then
changes the layer's output by T T' times the usual change: by learning T, the outer loop learns the metric of the steps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, query_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Natural, Rate


class TNet(Algorithm):
    """Gradient steps from a learned initialisation of backbone and linear head, in a metric that is learned with it.

    Every convolution and linear layer has a T over its outputs, as a 1 x 1 convolution, which starts as the identity.
    It is multiplied into the layer's weights, which gives the same and keeps the network as it is. `inner_lr`,
    `inner_steps`, `test_steps` and `checkpoint_inner` as for MAML, `head_init` too, but for "prototypes". Norms are
    left to the outer loop. The paper's MT-net has masks too, of the outputs that adapt: not here.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        checkpoint_inner: bool = False,
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.checkpoint_inner = checkpoint_inner
        self.adapted = {name for name in self.net.adaptable if "norm" not in name}
        layers = [name for name in self.adapted if name.endswith("weight") and self.net.get_parameter(name).dim() > 1]
        own = {name.removesuffix("weight"): self.net.get_parameter(name) for name in sorted(layers)}
        self.layers = {layer: f"transform.{i}" for i, layer in enumerate(own)}
        # T - 1, beside the weights, as all that the outer loop learns must be
        self.net.transform = nn.ParameterList(value.new_zeros(len(value), len(value)) for value in own.values())

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way, " Its head has a matrix of its own, and keeps its size.")
        return classifier(self.net, self._learned, support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        return query_loss(self.net, self._learned, episodes, self.checkpoint_inner)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, each layer with its T."""
        weights = self._transformed(dict(self.net.named_parameters()))
        body = {name.removeprefix("backbone."): value for name, value in weights.items() if name[:8] == "backbone"}
        return functional_call(self.net.backbone, body, (x, support))

    def _learned(self, net: nn.Module, learned: Parameters, support: Examples) -> Parameters:
        """The weights to call the network with on one task's queries."""

        def loss(weights: Parameters, step: int) -> Tensor:
            return task_loss(functional_call(net, self._transformed(weights), (support.x,)), support.y)

        steps = self.inner_steps if self.training else self.test_steps
        fast = adapt(loss, learned, self.adapted, steps, sgd(self.inner_lr), checkpoint=self.checkpoint_inner)
        return self._transformed(fast)

    def _transformed(self, weights: Parameters) -> Parameters:
        """Each layer's T multiplied into its weight (out, in, ...) and its bias (out,), as w + (T - 1) w."""
        found = dict(weights)
        for layer, less_one in self.layers.items():
            for name in {f"{layer}weight", f"{layer}bias"} & weights.keys():
                value = weights[name]
                found[name] = value + (weights[less_one] @ value.reshape(len(value), -1)).view_as(value)
        return found
