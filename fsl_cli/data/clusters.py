"""Training without labels: clusters of embeddings are classes.

CACTUs, Hsu et al., ICLR 2019, https://arxiv.org/abs/1810.02334. k-means divides the images into clusters, one or
several times, each time with the embedding's axes stretched at random; the classes of an episode are of one division.
Labels are hidden by construction, as where each image is a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fsl_cli.data.sampler import Numbers, raw_numbers
from fsl_cli.data.store import PseudoClasses
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count, Natural

BATCH = 4096  # images that a step of k-means looks at


@dataclass(frozen=True)
class Clusters:
    """`partitions` divisions of the training images into `clusters` by k-means, in minibatches.

    `run`: folder of a run whose backbone's features are clustered; none: what the images, or embeddings, consist of, or
    the codes of an auto-encoder that so many steps have trained on these images, `autoencoder`.
    Clusters with fewer images than an episode takes are left out; where there are few images, they are divided into so
    few clusters that these can have enough.
    """

    run: str | None = None
    clusters: Count = 500
    partitions: Count = 1
    autoencoder: Natural = 0

    def divisions(self, features: np.ndarray[Any, Any], need: int) -> Numbers:
        """The cluster of each image in each division, (partitions, n), of features (n, d).

        On one thread, so that they are the same whenever they are made. Raises UserError where scikit-learn is missing.
        """
        try:
            from sklearn.cluster import MiniBatchKMeans
            from threadpoolctl import threadpool_limits
        except ModuleNotFoundError as error:
            raise UserError('pseudo=cactus needs scikit-learn. Type pip install "fsl-cli[cluster]".') from error
        n, d = features.shape
        count = max(1, min(self.clusters, n // need))
        found = []
        with threadpool_limits(1):
            for number in range(self.partitions):
                stretch = np.array(raw_numbers(f"partition/{number}", d)) / 2.0**64
                scaled = features * stretch.astype(features.dtype) if self.partitions > 1 else features
                means = MiniBatchKMeans(count, batch_size=max(BATCH, 4 * count), n_init=1, random_state=number)
                found.append(means.fit_predict(scaled).astype(np.int64))
        return np.stack(found)

    @staticmethod
    def classes(items: Numbers, divisions: Numbers, need: int) -> PseudoClasses:
        """The clusters of `need` images or more as classes of these items (n,), those of a division a group."""
        own, sizes, groups = list[Numbers](), list[int](), list[Numbers]()
        for labels in divisions:
            counts = np.bincount(labels)
            good = np.flatnonzero(counts >= need)
            groups.append(np.arange(len(sizes), len(sizes) + len(good)))
            own += [items[labels == number] for number in good]
            sizes += counts[good].tolist()
        starts = np.cumsum([0, *sizes])
        return PseudoClasses(np.concatenate([items[:0], *own]), starts, groups=groups if len(groups) > 1 else None)
