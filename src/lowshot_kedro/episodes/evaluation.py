"""Accuracies of methods over the same episodes, kept as they come."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import RegionFeatures, View, spread_rows
from lowshot_kedro.episodes.confidence import RunningConfidence
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods import EpisodeMethod
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.episodes.sampler import EpisodeSampler
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import read_json
from lowshot_kedro.interruption import require_no_stop
from lowshot_kedro.locks import written_by_one
from lowshot_kedro.progress import Progress, Stopwatch
from lowshot_kedro.torch_threads import single_threaded_tasks

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 30.0
# Images whose features are part of what accuracies follow from, beside what the features say of
# themselves.
_CHECKSUM_ROWS = 64
_DIGEST_LETTERS = 16


@dataclass(frozen=True)
class EpisodeAccuracies:
    """Accuracies of methods over the same episodes.

    Attributes:
        episode_accuracies: A row for every episode: `episode`, its number from 0, then a column
            for every method with the part of the query images that it classifies right, float64.
        seconds_per_episode: Seconds that each method took for an episode, on average.
    """

    episode_accuracies: pd.DataFrame
    seconds_per_episode: Mapping[str, float]


def evaluate_episodes(
    views: Mapping[View, RegionFeatures],
    labels: ArrayLike,
    methods: Sequence[EpisodeMethod],
    parameters: EpisodesParameters,
    *,
    folder: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> EpisodeAccuracies:
    """Let methods classify the query images of the same episodes.

    The images of an episode are read once, for all methods. Every operation has one thread, so that
    the number of threads changes no accuracy. In memory: the images of one episode in every view
    that a method looks at, and the number of right answers for every episode.

    Args:
        views: Regions of all images, in every form that a method looks at.
        labels: (N,), the class of every image, as for
            :class:`~lowshot_kedro.episodes.sampler.EpisodeSampler`.
        methods: What to compare, for instance from
            :func:`~lowshot_kedro.episodes.choice.chosen_methods`.
        parameters: n_way, n_shot, n_query, n_episodes, seed and order of the episodes.
        folder: Where accuracies are kept, a JSON file for every method: every half minute, at the
            end, and when somebody stops the evaluation. Those that are there already, and follow
            from the same, are not computed again, whatever the number of episodes. None: nowhere.
        provenance: What the accuracies follow from besides arguments of this function and the
            provenance of the features, as JSON holds it.

    Returns:
        Accuracies and times, methods in the order given.

    Raises:
        InputError: For labels that have no such episodes, a view that a method looks at and that
            there is not, or scores that are no numbers, with the method and the episode.
        ResultInUseError: If another process writes to the folder.
    """
    sampler = parameters.sampler(labels)
    _require_methods(methods, views)
    used = {method.view: views[method.view] for method in methods}
    with nullcontext() if folder is None else written_by_one(folder):
        common = _common_facts(np.asarray(labels), parameters, provenance or {})
        facts_of_views = {view: _facts_of_view(regions) for view, regions in used.items()}
        records = [
            _Record(method, {**common, **facts_of_views[method.view]}, folder) for method in methods
        ]
        _evaluate_missing(records, sampler, used)
    n_query_images = sampler.n_way * sampler.n_query
    columns = {
        record.method.name: np.array(record.n_right[: len(sampler)]) / n_query_images
        for record in records
    }
    frame = pd.DataFrame({"episode": np.arange(len(sampler)), **columns})
    return EpisodeAccuracies(
        frame, {record.method.name: record.seconds_per_episode for record in records}
    )


class _Record:
    """What is known of one method, in memory and in its file.

    Args:
        method: The method.
        facts: What its accuracies follow from besides the method.
        folder: Where its file is; None: there is none.
    """

    def __init__(
        self, method: EpisodeMethod, facts: Mapping[str, Any], folder: Path | None
    ) -> None:
        self.method = method
        self.n_right: list[int] = []
        self.seconds = 0.0
        # Query images of this run that no class was better for than another.
        self.n_undecided = 0
        self._made_from = json.loads(json.dumps({**facts, **_facts_of_method(method)}))
        self._n_written = 0
        self._path = None
        if folder is not None:
            text = json.dumps(self._made_from, sort_keys=True)
            digest = hashlib.blake2b(text.encode()).hexdigest()[:_DIGEST_LETTERS]
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{method.name}-{digest}.json"
            self._read()

    @property
    def seconds_per_episode(self) -> float:
        """Seconds for an episode, on average."""
        return self.seconds / max(len(self.n_right), 1)

    def classify(self, episode: Episode) -> None:
        """Count how many query images of the next episode are classified right."""
        watch = Stopwatch()
        scores = self.method.scores(episode)
        self.seconds += watch.seconds
        _require_scores(scores, self.method, episode)
        self.n_undecided += int((scores.max(axis=1) == scores.min(axis=1)).sum())
        self.n_right.append(int((scores.argmax(axis=1) == episode.query_classes).sum()))

    def write(self) -> None:
        """Keep what is known. A file is there whole, or the older one is."""
        if self._path is None or self._n_written == len(self.n_right):
            return
        content = {
            "n_right": self.n_right,
            "seconds": self.seconds,
            "made_from": self._made_from,
        }
        partial = self._path.with_name(f".partial-{self._path.name}")
        try:
            partial.write_text(json.dumps(content))
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)
        self._n_written = len(self.n_right)

    def _read(self) -> None:
        assert self._path is not None
        try:
            content = read_json(self._path)
            n_right = [int(count) for count in content["n_right"]]
            seconds = float(content["seconds"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read and is made anew: %s", self._path, error)
            return
        if content.get("made_from") == self._made_from:
            self.n_right, self.seconds = n_right, seconds
            self._n_written = len(n_right)


def _evaluate_missing(
    records: Sequence[_Record], sampler: EpisodeSampler, views: Mapping[View, RegionFeatures]
) -> None:
    """Have every method classify the episodes that it has not classified yet."""
    n_episodes = len(sampler)
    first = min(min(len(record.n_right) for record in records), n_episodes)
    running = [_Running(record, sampler) for record in records]
    if first == n_episodes:
        logger.info("accuracies of %d episodes are there already", n_episodes)
        return
    if first:
        logger.info("accuracies of %d episodes are there already for all methods", first)
    n_support = sampler.n_way * sampler.n_shot
    reading = 0.0
    written = Stopwatch()
    with ExitStack() as stack:
        stack.enter_context(_one_thread_each())
        # Whatever stops the loop, what has been done is kept.
        for record in records:
            stack.callback(record.write)
        bar = stack.enter_context(Progress(n_episodes, "episodes", first, unit="episode"))
        for number, rows in enumerate(sampler.starting_at(first), start=first):
            require_no_stop()
            episode = Episode(number, rows[:n_support], rows[n_support:], sampler.n_way, views)
            missing = [each for each in running if len(each.record.n_right) <= number]
            watch = Stopwatch()
            for view in {each.record.method.view for each in missing}:
                episode.regions(view)
                if view == "map":
                    # Here, or the first method that looks at them would seem to be slow.
                    _ = episode.vectors
            reading += watch.seconds
            for each in missing:
                each.record.classify(episode)
            for each in running:
                each.take(number)
            best = max(running, key=lambda each: each.confidence.mean)
            bar.update(1, f"{best.record.method.title} {best.confidence}")
            if written.seconds >= SECONDS_BETWEEN_WRITES:
                for record in records:
                    record.write()
                written = Stopwatch()
    for record in records:
        if record.n_undecided:
            logger.warning(
                "%s: %d query images have the same score for every class, and count as the first",
                record.method.name,
                record.n_undecided,
            )
    times = ", ".join(
        f"{record.method.title} {1000 * record.seconds_per_episode:.3g}" for record in records
    )
    logger.info(
        "milliseconds an episode: reading %.3g, %s", 1000 * reading / (n_episodes - first), times
    )


class _Running:
    """The mean accuracy so far of a method, with its interval."""

    def __init__(self, record: _Record, sampler: EpisodeSampler) -> None:
        self.record = record
        self.confidence = RunningConfidence()
        self._n_query_images = sampler.n_way * sampler.n_query

    def take(self, number: int) -> None:
        """Take in the episodes up to one."""
        for known in range(self.confidence.n_episodes, number + 1):
            self.confidence.update(self.record.n_right[known] / self._n_query_images)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One thread for every operation of torch and BLAS, whose number changes how they round."""
    with single_threaded_tasks(1), threadpool_limits(1, user_api="blas"):
        yield


def _require_methods(
    methods: Sequence[EpisodeMethod], views: Mapping[View, RegionFeatures]
) -> None:
    if not methods:
        raise InputError(parameter="methods", found=[], expected="at least one method")
    names = [method.name for method in methods]
    for method in methods:
        if names.count(method.name) > 1:
            raise InputError(parameter="methods", found=method.name, expected="each method once")
        missing = method.missing_view(views)
        if missing:
            raise InputError(missing, parameter="methods", found=method.name)


def _require_scores(
    scores: NDArray[np.floating[Any]], method: EpisodeMethod, episode: Episode
) -> None:
    """Refuse scores that name no class, which would count as the first one."""
    expected = (len(episode.query_rows), episode.n_way)
    if scores.shape != expected:
        raise ValueError(
            f"{method.name}, episode {episode.number}: scores of shape {scores.shape}, expected "
            f"{expected}"
        )
    without = int(np.isnan(scores).any(axis=1).sum())
    if without:
        raise InputError(
            f"{method.name}, episode {episode.number}: NaN in the scores of {without} of "
            f"{len(scores)} query images; expected numbers"
        )


# What accuracies follow from.


def _common_facts(
    labels: NDArray[Any], parameters: EpisodesParameters, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    # The number of episodes is not among them: the first ones are the same, however many follow.
    names = ("n_way", "n_shot", "n_query", "seed", "order")
    return {
        "episodes": {name: getattr(parameters, name) for name in names},
        "labels": _checksum(json.dumps(labels.tolist()).encode()),
        **provenance,
    }


def _facts_of_view(regions: RegionFeatures) -> dict[str, Any]:
    features = regions.features
    rows = regions.read(spread_rows(features.n_rows, _CHECKSUM_ROWS))
    return {
        "features": {
            "n_images": features.n_rows,
            "shape": list(regions.shape),
            "checksum": _checksum(np.ascontiguousarray(rows, "<f4").tobytes()),
            "made_from": dict(regions.provenance),
        }
    }


def _facts_of_method(method: EpisodeMethod) -> dict[str, Any]:
    return {
        "method": method.name,
        "parameters": dict(method.parameters()),
        "method_seed": method.options.seed,
        "code": _checksum_of_code(type(method)),
        "libraries": {name: _version(name) for name in method.needs},
    }


def _checksum_of_code(method: type[EpisodeMethod]) -> str:
    """Of the files of a method and of those it inherits from: who edits one wants new figures."""
    classes = [each for each in method.__mro__ if issubclass(each, EpisodeMethod)]
    names = dict.fromkeys(each.__module__ for each in classes if each is not EpisodeMethod)
    try:
        texts = [inspect.getsource(sys.modules[name]) for name in names]
    except (KeyError, OSError, TypeError):  # Typed into a notebook, or shipped without source.
        return "unknown"
    return _checksum("\n".join(texts).encode())


def _version(module: str) -> str:
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return "unknown"


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
