import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.episodes import EpisodeSampler, evaluation
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.evaluation import evaluate_episodes
from lowshot_kedro.episodes.methods import METHODS, EpisodeMethod, MethodOptions
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.errors import InputError
from tests.episodes.made_up import collection

PARAMETERS = EpisodesParameters(n_way=3, n_shot=1, n_query=2, n_episodes=8, seed=4)
REGIONS, LABELS = collection(n_classes=6, n_images=6, noise=0.9)
VIEWS = {"map": REGIONS}


class Guesses(EpisodeMethod):
    """Scores at random, of a seed; notes the episodes it is asked for."""

    name = "guesses"
    title = "guesses"

    def __init__(self, options=None, stop_at=None, parameters=None):
        super().__init__(options or MethodOptions())
        self.asked, self.stop_at, self.settings = [], stop_at, parameters or {}

    def parameters(self):
        return self.settings

    def scores(self, episode):
        if episode.number == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(episode.number)
        rng = np.random.default_rng(self.seed_of(episode))
        return rng.random((len(episode.query_rows), episode.n_way))


class OtherGuesses(Guesses):
    name = "other_guesses"


def evaluate(*methods, folder=None, views=VIEWS, labels=LABELS, provenance=None, **changes):
    parameters = replace(PARAMETERS, **changes)
    return evaluate_episodes(
        views, labels, methods, parameters, folder=folder, provenance=provenance
    ).episode_accuracies


def nearest():
    return METHODS["nearest_class_mean"](MethodOptions())


def test_accuracies_are_those_of_every_episode_by_itself(tmp_path):
    sampler = EpisodeSampler(LABELS, 3, 1, 2, 8, 4)
    expected = []
    for number, rows in enumerate(sampler):
        classes = LABELS[rows]
        np.testing.assert_array_equal(classes, np.tile(classes[:3], 3))
        given = Episode(number, rows[:3], rows[3:], 3, VIEWS)
        guesses = [
            [classes[:3][line.argmax()] for line in method.scores(given)]
            for method in (nearest(), Guesses())
        ]
        expected.append([number, *(np.mean(found == classes[3:]) for found in guesses)])
    found = evaluate(nearest(), Guesses(), folder=tmp_path / "kept")
    assert list(found.columns) == ["episode", "nearest_class_mean", "guesses"]
    assert found["guesses"].nunique() > 2
    np.testing.assert_allclose(found.to_numpy(), np.array(expected, dtype=float))
    assert found["guesses"].dtype == np.float64
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.name.partition("-")[0] for path in kept] == ["guesses", "nearest_class_mean"]
    n_right = json.loads(kept[0].read_text())["n_right"]
    np.testing.assert_allclose(np.array(n_right) / 6, found["guesses"])


def test_what_is_kept_is_not_computed_again(tmp_path):
    first = evaluate(Guesses(), folder=tmp_path)
    again = Guesses()
    pd.testing.assert_frame_equal(evaluate(again, folder=tmp_path), first)
    assert again.asked == []
    without = Guesses()
    evaluate(without)
    assert without.asked == list(range(8))


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path):
    expected = evaluate(nearest(), Guesses())
    with pytest.raises(KeyboardInterrupt):
        evaluate(nearest(), Guesses(stop_at=5), folder=tmp_path)
    assert not list(tmp_path.glob(".partial*"))
    going_on = Guesses()
    pd.testing.assert_frame_equal(evaluate(nearest(), going_on, folder=tmp_path), expected)
    assert going_on.asked == [5, 6, 7]


def test_an_evaluation_that_is_killed_has_kept_what_was_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "SECONDS_BETWEEN_WRITES", 0.0)
    sizes = []

    class Watching(Guesses):
        def scores(self, episode):
            files = list(tmp_path.glob("guesses*.json"))
            sizes.append(len(json.loads(files[0].read_text())["n_right"]) if files else 0)
            return super().scores(episode)

    evaluate(Watching(), folder=tmp_path)
    assert sizes == list(range(8))


def test_more_episodes_extend_fewer_cost_nothing(tmp_path):
    evaluate(Guesses(), folder=tmp_path, n_episodes=3)
    more, fewer = Guesses(), Guesses()
    extended = evaluate(more, folder=tmp_path)
    assert more.asked == [3, 4, 5, 6, 7]
    pd.testing.assert_frame_equal(extended, evaluate(Guesses()))
    some = evaluate(fewer, folder=tmp_path, n_episodes=2)
    assert fewer.asked == []
    pd.testing.assert_frame_equal(some, extended[:2])
    # What is left out of a result stays in the file.
    last = Guesses()
    evaluate(last, folder=tmp_path)
    assert last.asked == []


def test_a_method_that_is_added_later_computes_only_itself(tmp_path):
    evaluate(Guesses(), folder=tmp_path)
    known, added = Guesses(), OtherGuesses()
    both = evaluate(known, added, folder=tmp_path)
    assert (known.asked, added.asked) == ([], list(range(8)))
    pd.testing.assert_frame_equal(both, evaluate(Guesses(), OtherGuesses()))
    assert not both["guesses"].equals(both["other_guesses"])


@pytest.mark.parametrize(
    "change",
    [
        {"views": {"map": collection(n_classes=6, n_images=6, noise=0.9, seed=1)[0]}},
        {"views": {"map": replace(REGIONS, provenance={"network": "another"})}},
        {"views": {"map": RegionFeatures(REGIONS.features, (48, 1, 1))}},
        {"labels": np.roll(LABELS, 1)},
        {"n_shot": 2},
        {"n_query": 3},
        {"n_way": 2},
        {"seed": 5},
        {"order": "loader"},
        {"provenance": {"images": "others"}},
    ],
    ids=[
        "features", "provenance of features", "shape", "labels", "n_shot", "n_query", "n_way",
        "seed", "order", "provenance",
    ],
)  # fmt: skip
def test_whatever_accuracies_follow_from_counts(change, tmp_path):
    evaluate(Guesses(), folder=tmp_path)
    other = Guesses()
    evaluate(other, folder=tmp_path, **change)
    assert other.asked == list(range(8))
    # Results of both are kept side by side.
    back = Guesses()
    evaluate(back, folder=tmp_path)
    assert back.asked == []


@pytest.mark.parametrize(
    "other", [Guesses(MethodOptions(seed=2)), Guesses(parameters={"k": 3})], ids=["seed", "k"]
)
def test_parameters_of_a_method_count(other, tmp_path):
    evaluate(Guesses(), folder=tmp_path)
    evaluate(other, folder=tmp_path)
    assert other.asked == list(range(8))


def test_the_code_of_a_method_counts(tmp_path, monkeypatch):
    evaluate(Guesses(), folder=tmp_path)
    sources = []

    def edited(module):
        sources.append(module.__name__)
        return "edited"

    monkeypatch.setattr(evaluation.inspect, "getsource", edited)
    again = Guesses()
    evaluate(again, folder=tmp_path)
    assert again.asked == list(range(8))
    assert sources == [__name__]

    def without_source(module):
        raise OSError

    monkeypatch.setattr(evaluation.inspect, "getsource", without_source)
    evaluate(Guesses(), folder=tmp_path)
    kept = Guesses()
    evaluate(kept, folder=tmp_path)
    assert not kept.asked


@pytest.mark.parametrize("content", ["{", "[]", '{"n_right": 3}', '{"seconds": 1}'])
def test_a_file_that_is_damaged_is_made_anew(content, tmp_path, caplog):
    expected = evaluate(Guesses(), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    again = Guesses()
    pd.testing.assert_frame_equal(evaluate(again, folder=tmp_path), expected)
    assert again.asked == list(range(8))
    assert f"{file} cannot be read" in caplog.text
    assert len(json.loads(file.read_text())["n_right"]) == 8


def test_images_of_an_episode_are_read_once_for_all_methods():
    REGIONS.features.reads.clear()
    evaluate(nearest(), Guesses(), OtherGuesses(), METHODS["nearest_neighbors"](MethodOptions()))
    counts = np.zeros(len(LABELS), int)
    for first, last in REGIONS.features.reads:
        counts[first:last] += 1
    wanted = np.bincount(np.concatenate(list(EpisodeSampler(LABELS, 3, 1, 2, 8, 4))))
    # Besides, some rows are looked at once to recognise the features.
    assert ((counts - wanted) <= 1).all()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_operations_have_one_thread_and_the_caller_those_from_before(n_threads):
    seen = []

    class Looking(Guesses):
        def scores(self, episode):
            seen.append(torch.get_num_threads())
            return super().scores(episode)

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        evaluate(Looking(), n_episodes=1)
        assert seen == [1]
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


def test_scores_that_are_no_numbers_name_method_and_episode(tmp_path):
    class Broken(Guesses):
        def scores(self, episode):
            scores = super().scores(episode)
            if episode.number == 2:
                scores[3, 1] = np.nan
            return scores

    with pytest.raises(InputError, match="guesses, episode 2: NaN in the scores of 1 of 6 query"):
        evaluate(Broken(), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text())["n_right"]) == 2

    class Wrong(Guesses):
        def scores(self, episode):
            return super().scores(episode)[:, :2]

    with pytest.raises(ValueError, match=r"guesses, episode 0: scores of shape \(6, 2\)"):
        evaluate(Wrong())


def test_images_without_a_better_class_are_told(caplog):
    class Undecided(Guesses):
        def scores(self, episode):
            scores = super().scores(episode)
            scores[:3] = 0
            return scores

    found = evaluate(Undecided(), OtherGuesses())
    assert "guesses: 24 query images have the same score for every class" in caplog.text
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert (found["guesses"] >= 1 / 6).all()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "methods: got \\[\\], expected at least one"),
        ([Guesses(), Guesses()], "got 'guesses', expected each method once"),
        ([METHODS["deepemd_grid"](MethodOptions())], "looks at the view grid, but there is map"),
    ],
)
def test_what_cannot_be_compared_is_told_before_work(methods, message, tmp_path):
    with pytest.raises(InputError, match=message):
        evaluate(*methods, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_the_log_says_how_long_methods_take_and_what_was_there(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    result = evaluate_episodes(VIEWS, LABELS, [nearest(), Guesses()], PARAMETERS, folder=tmp_path)
    assert set(result.seconds_per_episode) == {"nearest_class_mean", "guesses"}
    assert all(0 < seconds < 10 for seconds in result.seconds_per_episode.values())
    assert "milliseconds an episode: reading" in caplog.text
    assert "nearest class mean" in caplog.text
    again = evaluate_episodes(VIEWS, LABELS, [nearest(), Guesses()], PARAMETERS, folder=tmp_path)
    assert again.seconds_per_episode == result.seconds_per_episode
    assert "accuracies of 8 episodes are there already" in caplog.text


def test_the_bar_shows_the_mean_of_the_best_so_far(monkeypatch):
    notes = []

    class Noted(evaluation.Progress):
        def update(self, n_rows, note=""):
            notes.append(note)
            super().update(n_rows, note)

    monkeypatch.setattr(evaluation, "Progress", Noted)
    found = evaluate(nearest(), Guesses())
    mean = found["nearest_class_mean"].mean()
    assert mean > found["guesses"].mean()
    assert len(notes) == 8
    assert notes[-1].startswith(f"nearest class mean {100 * mean:.2f} ± ")
