"""What a method is: everything that is said about it by name, and how it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.methods.images import ChosenImages

# The hyper-parameters of a run, by name.
Settings = Mapping[str, Any]

_MAX_COUNT = 2**31 - 1
# The square of this number fits single precision.
_MAX_RATE = 1e18


class Expected(NamedTuple):
    """What a hyper-parameter may be, in a file that people may change.

    Attributes:
        text: The values in words, for messages.
        holds: Tells whether a value is one of these.
    """

    text: str
    holds: Callable[[Any], bool]


def _in_range(kind: type, minimum: float, maximum: float) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        return is_number and bool(minimum <= value <= maximum)

    return holds


COUNT = Expected(f"an integer from 1 to {_MAX_COUNT}", _in_range(Integral, 1, _MAX_COUNT))
STEPS = Expected(f"an integer from 0 to {_MAX_COUNT}", _in_range(Integral, 0, _MAX_COUNT))
RATE = Expected(f"a number from 0 to {_MAX_RATE:g}", _in_range(Real, 0, _MAX_RATE))
PART = Expected(
    "a number above 0 and below 1",
    lambda value: _in_range(Real, 0, 1)(value) and value not in (0, 1),
)
NAME = Expected("a name", lambda value: isinstance(value, str))


class Setting(NamedTuple):
    """A hyper-parameter of which every value needs a run of its own.

    Attributes:
        expected: What it may be.
        short: What names of runs put before its value: `lr0.1`.
        usual: The value that runs do not mention; None: there is none.
    """

    expected: Expected
    short: str
    usual: Any = None


class Axis(NamedTuple):
    """The axis along which a run has more than one result: its steps, or values of a parameter.

    Attributes:
        name: Name of the place in each entry of the metrics, which are called `per_NAME`.
        parameter: Name of the chosen place among the hyper-parameters.
        expected: What it may be.
        is_steps: Whether a run that has done more steps holds the results of fewer, too.
    """

    name: str
    parameter: str
    expected: Expected
    is_steps: bool = False


class Style(NamedTuple):
    """How plots draw a method.

    Attributes:
        color: Colour of its curve.
        marker: Marker of its points.
        line: Its line in the plot against the size of the background; None: it is not drawn there.
            A method that uses no unlabelled images is a level.
    """

    color: str
    marker: str
    line: str | None = None


class SettingsMap(NamedTuple):
    """One setting against another in the plot of the validation grid.

    A cell has the best accuracy along the axis, and the place of that. Every value of a third
    setting has a heat map of its own.

    Attributes:
        rows: The setting that is drawn downwards.
        columns: The setting that is drawn to the right.
        panels: The third setting.
        row_label: What the plot calls the first.
        column_label: What it calls the second.
        panel_label: What it calls the third.
    """

    rows: str
    columns: str
    panels: str
    row_label: str
    column_label: str
    panel_label: str


class PlacesMap(NamedTuple):
    """All runs against the places of the axis in the plot of the validation grid.

    Attributes:
        column_label: What the plot calls the places.
    """

    column_label: str


@dataclass(frozen=True)
class Sizes:
    """How large the data of a run are: images of each kind, classes, and columns.

    Attributes:
        n_labeled: Labelled images.
        n_unlabeled: Unlabelled images that are used, background images among them.
        n_background: Background images.
        n_test: Test images.
        n_classes: Classes C.
        n_features: Columns of the features.
        n_components: Columns of the vectors.
    """

    n_labeled: int
    n_unlabeled: int
    n_background: int
    n_test: int
    n_classes: int
    n_features: int
    n_components: int

    @property
    def n_nodes(self) -> int:
        """Labelled and unlabelled images."""
        return self.n_labeled + self.n_unlabeled

    @property
    def score_bytes(self) -> int:
        """Bytes of the scores of the test images in float32."""
        return 4 * self.n_test * self.n_classes


@dataclass(frozen=True)
class Options:
    """What a method follows besides the settings of its runs.

    Attributes:
        grid: Its section of the sweep, or the one of a single run; None if it has none.
        sections: Sections of parameters by name: `graph`, `diffusion`, those of methods.
    """

    grid: Any = None
    sections: Mapping[str, Any] = field(default_factory=dict)


class Outcome(NamedTuple):
    """What came of one run.

    Attributes:
        run: Its position in :attr:`Work.settings`.
        entries: What :attr:`Work.judge` returned, place by place.
        seconds: Time of each phase.
        described: The parameters used, by section, for the metrics.
        n_nodes: Nodes of the graph; None for a method without one.
        state: What has been learnt, as torch.save takes it; empty for nothing to keep.
    """

    run: int
    entries: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    described: Mapping[str, Any] = {}
    n_nodes: int | None = None
    state: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Work:
    """Runs of one method on one choice of images, done side by side.

    Attributes:
        images: The images.
        settings: The settings of each run.
        options: What all of them follow.
        judge: Takes the number of a run, its place along the axis (None without) and the scores,
            float32 (T, C); returns the entry of the metrics, which JSON can hold. To be called for
            every run and every place, as soon as the scores are there.
        places: Where on the axis results are wanted, if it is not steps.
        n_steps: How many steps to do, if the axis is steps.
        n_images: Labelled and unlabelled images that are used, the fewest of all modes.
        names: Names of the runs, in files.
        is_measured: Whether more than the last place is wanted; not where only scores are kept.
        is_strict: Whether settings that cannot be trained are an error.
        unfinished: A file for what has been done so far; None: it is not kept.
        provenance: What the entries follow from, for that file.
        parts: For a combination: float (T, C), what each part says of the test images, as
            probabilities, by its name.
    """

    images: ChosenImages
    settings: Sequence[Settings]
    options: Options
    judge: Callable[[int, Any, NDArray[np.float32]], Mapping[str, Any]]
    places: Sequence[Any] = ()
    n_steps: int = 0
    n_images: int = 0
    names: Sequence[str] = ()
    is_measured: bool = True
    is_strict: bool = False
    unfinished: Callable[[], AbstractContextManager[Path | None]] = nullcontext
    provenance: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)


class Method(ABC):
    """A classifier as sweeps, single runs, tables and plots know it.

    Nothing outside its file says anything about it by name. A new one is a file with a class, and a
    line in :data:`lowshot_kedro.methods.METHODS`.

    Attributes:
        name: Its name in parameters, names of runs and files.
        title: Its name in tables and plots.
        style: How plots draw it.
        needs: `features` of labelled images; `vectors` of labelled and unlabelled ones; or the
            `graph` over these.
        settings: What a sweep searches and needs a run of its own, in the order of names of runs.
        axis: The axis along which a run has more than one result; None: it has one.
        parts: The methods whose scores it combines, if it does nothing else. Its runs have the
            settings and the unlabelled images of the first.
        grid: The section `sweep.NAME`; None: there is none.
        parameters: The section `NAME`, for a single run; None: there is none.
        shared: Settings that runs must have in common to be done side by side.
        heat_map: How the validation grid is drawn, which takes an axis; None: not at all.
        step_label: What a step is called on the axis of a plot; None: steps are not drawn.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    style: ClassVar[Style]
    needs: ClassVar[Literal["features", "vectors", "graph"]] = "features"
    settings: ClassVar[Mapping[str, Setting]] = {}
    axis: ClassVar[Axis | None] = None
    parts: ClassVar[tuple[str, ...]] = ()
    grid: ClassVar[type | None] = None
    parameters: ClassVar[type | None] = None
    shared: ClassVar[tuple[str, ...]] = ()
    heat_map: ClassVar[SettingsMap | PlacesMap | None] = None
    step_label: ClassVar[str | None] = None

    @abstractmethod
    def run(self, work: Work) -> Iterator[Outcome]:
        """Do the runs, and yield an outcome for each."""

    # What a sweep searches.

    def candidates(self, grid: Any, n_images: int) -> list[dict[str, Any]]:
        """The settings that a sweep tries.

        Args:
            grid: The section of the sweep.
            n_images: Labelled and unlabelled images that are used.
        """
        return [{}]

    def places(self, grid: Any, n_images: int) -> tuple[Any, ...]:
        """The places of an axis that is not steps."""
        return ()

    def n_steps(self, grid: Any) -> int:
        """Steps of a validation run; 0 without an axis of steps."""
        return 0

    def n_test_steps(self, grid: Any, n_chosen: int) -> int:
        """Steps of a test run: as many as were chosen, or more where they cost nothing."""
        return n_chosen

    def max_neighbors(self, grid: Any) -> int:
        """How many neighbours of the background's graph runs use at most; 0: they use none."""
        return 0

    def fits(self, grid: Any, n_images: Sequence[int]) -> bool:
        """Whether there are neither too few nor too many images.

        Args:
            grid: The section of the sweep.
            n_images: Labelled and unlabelled images that are used, in each mode.
        """
        return True

    def left_out(self, grid: Any, n_images: int) -> tuple[str, Sequence[Any]]:
        """A parameter of the grid, and its values that are more than there are images."""
        return "", ()

    # What a sweep has to know before it starts runs.

    def memory_bytes(
        self, sizes: Sizes, settings: Sequence[Settings], options: Options, n_steps: int
    ) -> int:
        """How much memory runs side by side take, about, without what a process takes anyway.

        The default is that of a method that keeps the features of labelled and test images.
        """
        features = 4 * (sizes.n_labeled + sizes.n_test) * sizes.n_features
        weights = 4 * len(settings) * sizes.n_classes * sizes.n_features
        return 2 * features + 4 * weights + 3 * sizes.score_bytes

    def provenance(self, settings: Settings, options: Options, n_images: int) -> dict[str, Any]:
        """What the scores follow from besides the data and the settings."""
        return {}

    def places_provenance(self, options: Options, n_images: int) -> dict[str, Any]:
        """What tells at which places there are entries, besides the number of steps."""
        return {}

    # One run with the parameters that people type.

    def single(
        self, parameters: Any, grid: Any, n_images: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a single run, and the places and steps of its work.

        Args:
            parameters: An instance of :attr:`parameters`, or None where there is no such section.
            grid: The section of the sweep, the first of which is taken where nothing else is said.
            n_images: Labelled and unlabelled images that are used.

        Returns:
            Settings, and keyword arguments of :class:`Work`.
        """
        if parameters is None:
            settings = self.candidates(grid, n_images)[0]
            places = {"n_steps": self.n_steps(grid), "places": self.places(grid, n_images)[:1]}
            return settings, places
        values = asdict(parameters)
        settings = {name: values[name] for name in self.settings}
        if self.axis is None or self.axis.parameter not in values:
            return settings, {}
        place = values[self.axis.parameter]
        return settings, {"n_steps": place} if self.axis.is_steps else {"places": (place,)}

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Scores as they are averaged with those of others.

        Args:
            scores: float32 (T, C), larger is more likely.

        Returns:
            float (T, C), at least 0. Rows sum to 1; one without a score above 0 stays without.
        """
        positive = np.maximum(scores, 0)
        sums = positive.sum(axis=1, keepdims=True, dtype=np.float64)
        return positive / np.where(sums == 0, 1, sums)

    # What follows from all this.

    @property
    def uses_unlabeled(self) -> bool:
        """Whether runs tell which unlabelled images they use."""
        return self.needs != "features"

    def without_usual(self, settings: Settings) -> dict[str, Any]:
        """Settings as runs hold them: the usual values go without saying."""
        return {
            name: settings[name]
            for name, setting in self.settings.items()
            if name in settings and (setting.usual is None or settings[name] != setting.usual)
        }

    def with_usual(self, settings: Settings) -> dict[str, Any]:
        """The inverse of :meth:`without_usual`."""
        return {
            name: settings.get(name, setting.usual)
            for name, setting in self.settings.items()
            if name in settings or setting.usual is not None
        }

    def expected(self) -> dict[str, Expected]:
        """What has to stand in the file of the hyper-parameters."""
        expected = {name: setting.expected for name, setting in self.settings.items()}
        if self.axis is not None:
            expected[self.axis.parameter] = self.axis.expected
        return expected
