"""Which images an episode consists of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import refuse, require_integer, require_one_of

Order = Literal["direct", "loader", "eval.py"]
ORDERS: tuple[Order, ...] = ("direct", "loader", "eval.py")

# torch's generator uses as many bits of a seed.
_MAX_SEED = 2**32 - 1
# eval.py loads with 8 processes, for each of which torch draws 2 episodes in advance, and fits the
# structured layer of an episode with several shots in 100 passes.
_EPISODES_IN_ADVANCE = 16
_FITTING_PASSES = 100


class EpisodeSampler:
    """Positions of images, episode by episode, in the original's order for a seed.

    Classes are drawn with `torch.randperm`, and then the images of each of them. The positions of
    an episode stand as `abcde abcde …`, one image of each class after the other: the first
    n_way · n_shot are the support, the others the queries (icoz69/DeepEMD, CategoriesSampler).

    Every iteration starts a generator of its own from the seed, so that it repeats, whatever else
    draws from torch's generator. The original draws on from the global generator instead, and takes
    the seed 0 for none at all; here 0 is a seed like any other. What it draws depends on what drew
    before, which `order` replays:

    - `direct`: nothing; the sampler is iterated directly after `torch.manual_seed(seed)`.
    - `loader`: a `torch.utils.data.DataLoader`, which draws its own seed first. Its number of
      processes changes nothing.
    - `eval.py`: as the original's evaluation, which makes its ResNet-12 at random, then a loader of
      8 processes. With several shots its structured layers draw between the episodes, from the 18th
      on.

    The same images in another order make other episodes: the original numbers classes, and lists
    images, as its data sets do (:func:`~lowshot_kedro.episodes.image_sets.few_shot_images`).

    A sampler can be the `batch_sampler` of a `torch.utils.data.DataLoader`. It holds the positions
    of the images once, sorted by class.

    Args:
        labels: (N,), the class of every image: integers or words, of any values and in any order.
            Classes are numbered in increasing order. Images with a negative label are left out.
        n_way: Classes of an episode.
        n_shot: Support images of a class.
        n_query: Query images of a class.
        n_episodes: Episodes.
        seed: From 0 to 2³² - 1.
        order: What drew before, one of `ORDERS`.
        class_names: Names of the classes by label, for messages; None: these have the labels.

    Raises:
        InputError: If there are fewer classes than n_way, a class has fewer images than n_shot +
            n_query (the original breaks off in the middle), or an argument is out of range.
    """

    def __init__(
        self,
        labels: ArrayLike,
        n_way: int,
        n_shot: int,
        n_query: int,
        n_episodes: int,
        seed: int,
        order: Order = "direct",
        class_names: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("n_way", n_way), ("n_shot", n_shot)):
            require_integer(name, value, 1)
        for name, value in (("n_query", n_query), ("n_episodes", n_episodes)):
            require_integer(name, value, 1)
        require_integer("seed", seed, 0, _MAX_SEED)
        require_one_of("order", order, ORDERS)
        self.n_way, self.n_shot, self.n_query = int(n_way), int(n_shot), int(n_query)
        self.n_episodes, self.seed, self.order = int(n_episodes), int(seed), order
        n_images = self.n_shot + self.n_query
        self._rows, self._counts = _images_by_class(labels, self.n_way, n_images, class_names)
        self._firsts = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        """Episodes."""
        return self.n_episodes

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """The episodes from the first on, int64 ((n_shot + n_query) · n_way,) each."""
        return self.starting_at(0)

    def starting_at(self, first: int) -> Iterator[NDArray[np.int64]]:
        """The episodes from one on, the same as an iteration from the first has them.

        Numbers are drawn for the earlier ones too, which takes about 0.1 milliseconds an episode.

        Args:
            first: From 0 to n_episodes.
        """
        require_integer("first", first, 0, self.n_episodes)
        for classes, positions in islice(self._draws(), first, None):
            rows = [
                self._rows[self._firsts[number] + of_class]
                for number, of_class in zip(classes, positions, strict=True)
            ]
            yield np.stack(rows, axis=1).reshape(-1)

    def _draws(self) -> Iterator[tuple[list[int], list[NDArray[np.int64]]]]:
        """Classes of every episode, and for each of them positions among its images."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        if self.order == "eval.py":
            from lowshot_kedro.networks.resnet12 import advance_generator

            advance_generator(generator)
        if self.order != "direct":
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        fits_layers = self.order == "eval.py" and self.n_shot > 1
        counts = self._counts.tolist()
        n_images = self.n_shot + self.n_query
        for number in range(self.n_episodes):
            if fits_layers and number > _EPISODES_IN_ADVANCE:
                for _ in range(_FITTING_PASSES):
                    torch.randperm(self.n_way * self.n_shot, generator=generator)
            order = torch.randperm(len(counts), generator=generator)
            classes = order[: self.n_way].tolist()
            yield (
                classes,
                [
                    torch.randperm(counts[of_class], generator=generator)[:n_images].numpy()
                    for of_class in classes
                ],
            )


def _images_by_class(
    labels: ArrayLike, n_way: int, n_images: int, class_names: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the images sorted by class, and how many each class has.

    Raises:
        InputError: If episodes cannot be drawn from them.
    """
    expected = "one class, an integer or a word, for every image"
    found = np.asarray(labels)
    is_number = found.dtype.kind in "fiub"
    if found.ndim != 1 or not found.size or not (is_number or found.dtype.kind in "UTO"):
        message = f"of shape {found.shape}, {found.dtype}"
        raise InputError(message, parameter="labels", found=labels, expected=expected)
    if is_number and not np.array_equal(found, np.floor(found)):  # NaN equals nothing.
        raise refuse("labels", labels, expected)
    rows = np.arange(len(found), dtype=np.int64)
    if is_number:
        rows = np.flatnonzero(found >= 0)
    try:
        names, numbers, counts = np.unique(found[rows], return_inverse=True, return_counts=True)
    except TypeError as error:
        raise refuse("labels", labels, expected) from error
    if len(names) < n_way:
        raise refuse("n_way", n_way, f"at most {len(names)}, the number of classes")
    small = np.flatnonzero(counts < n_images)
    if len(small):
        n_others = len(small) - 1
        more = "1 more class has" if n_others == 1 else f"{n_others} more classes have"
        others = f", and {more} too few" if n_others else ""
        label = names[small[0]]
        name = label
        # There may be names for a part of the classes alone.
        if class_names is not None and is_number and label < len(class_names):
            name = class_names[int(label)]
        raise InputError(
            f"labels: class {name} has {counts[small[0]]} images{others}; expected at "
            f"least {n_images} in each class, as many as n_shot and n_query take"
        )
    by_class = np.argsort(numbers.reshape(-1), kind="stable")
    return rows[by_class], counts.astype(np.int64)
