import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from easyfsl import methods as easyfsl_methods
from sklearn.linear_model import LogisticRegression

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.episodes.methods import METHODS, MethodOptions
from lowshot_kedro.episodes.methods.easyfsl_method import EasyFSLMethod
from tests.episodes.made_up import collection, episode
from tests.features import MemoryFeatures

OPTIONS = MethodOptions(seed=1, deepemd=DeepEMDParameters(prototype_passes=2))
EASYFSL = [name for name, method in METHODS.items() if issubclass(method, EasyFSLMethod)]
DEEPEMD = [name for name in METHODS if name.startswith("deepemd")]
# Of classes that overlap, so that it matters how they are told apart.
NOISY = collection(noise=0.8)


def method(name, **settings):
    return METHODS[name](OPTIONS, **settings)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_queries(given, queries):
    """The episode with some of its query images, in another order."""
    return replace(given, query_rows=given.query_rows[queries])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_file_and_says_what_it_is(name):
    method_class = METHODS[name]
    assert method_class.name == name
    assert Path(inspect.getfile(method_class)).stem == name
    assert method_class.title and method_class.source
    assert len({other.title for other in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("n_way", [2, 5])
@pytest.mark.parametrize("n_shot", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_classes_that_lie_apart_are_told_apart(name, n_shot, n_way):
    given = episode(*collection(), n_way, n_shot)
    scores = method(name).scores(given)
    assert scores.shape == (3 * n_way, n_way)
    assert scores.argmax(axis=1).tolist() == given.query_classes.tolist()


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_query_images_does_not_matter(name):
    given = episode(*NOISY, n_shot=2)
    order = np.random.default_rng(3).permutation(len(given.query_rows))
    scores = method(name).scores(given)
    permuted = method(name).scores(with_queries(given, order))
    np.testing.assert_allclose(permuted, scores[order], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_inductive_classifies_every_image_by_itself(name):
    given = episode(*NOISY, n_shot=2)
    scores = method(name).scores(given)
    some = method(name).scores(with_queries(given, np.arange(given.n_way)))
    is_same = np.allclose(some, scores[: given.n_way], rtol=1e-4, atol=1e-5)
    assert is_same is not METHODS[name].is_transductive


@pytest.mark.parametrize("name", METHODS)
def test_nothing_that_others_share_is_changed(name):
    given = episode(*NOISY, n_shot=2)
    before = [array.copy() for array in (*given.vectors, *given.regions("map"))]
    torch.manual_seed(5)
    state, others = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = method(name).scores(given)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], others)  # noqa: NPY002
    for array, original in zip((*given.vectors, *given.regions("map")), before, strict=True):
        np.testing.assert_array_equal(array, original)
    np.testing.assert_array_equal(method(name).scores(given), first)


# Against what others compute.


def test_nearest_class_means_are_cosines_with_the_mean_of_directions():
    given = episode(*NOISY, n_shot=3)
    support, query = (unit(vectors.astype(np.float64)) for vectors in given.vectors)
    means = np.stack([support[given.support_classes == name].mean(axis=0) for name in range(5)])
    np.testing.assert_allclose(
        method("nearest_class_mean").scores(given), query @ unit(means).T, rtol=1e-5
    )


@pytest.mark.parametrize("k", [1, 4, 100])
def test_nearest_neighbors_vote_by_their_cosines(k):
    given = episode(*NOISY, n_shot=3)
    support, query = (unit(vectors.astype(np.float64)) for vectors in given.vectors)
    cosines = query @ support.T
    expected = np.zeros((len(query), 5))
    for row, line in enumerate(cosines):
        for neighbor in np.argsort(-line)[:k]:
            expected[row, given.support_classes[neighbor]] += line[neighbor]
    np.testing.assert_allclose(method("nearest_neighbors", k=k).scores(given), expected, rtol=1e-5)


def test_the_nearest_counts_where_every_support_image_points_the_other_way():
    regions, classes = collection(noise=0.8)
    given = episode(regions, classes, n_shot=2)
    regions.features.array[given.query_rows] *= -1
    support, query = (unit(vectors.astype(np.float64)) for vectors in given.vectors)
    assert (query @ support.T).max() < 0
    nearest = given.support_classes[(query @ support.T).argmax(axis=1)]
    assert len(set(nearest.tolist())) > 2
    scores = method("nearest_neighbors").scores(given)
    assert scores.argmax(axis=1).tolist() == nearest.tolist()


def test_logistic_regression_is_that_of_scikit_learn_on_directions():
    given = episode(*NOISY, n_shot=3)
    support, query = (unit(vectors) for vectors in given.vectors)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(support, given.support_classes)
    np.testing.assert_allclose(
        method("logistic_regression").scores(given), model.predict_proba(query), atol=1e-5
    )


def dense_diffusion(given, k, n_iterations):
    """Scores of the query images, with all matrices dense."""
    nodes = unit(np.concatenate(given.vectors).astype(np.float64))
    similar = nodes @ nodes.T
    links = np.zeros(similar.shape)
    for row, line in enumerate(similar):
        links[row, np.argsort(-line)[:k]] = 1
    links = links + links.T
    walk = links / links.sum(axis=1, keepdims=True)
    mass = np.zeros((len(nodes), given.n_way))
    mass[np.arange(len(given.support_rows)), given.support_classes] = 1 / given.n_shot
    for _ in range(n_iterations):
        mass = walk @ mass
        mass /= mass.sum(axis=0)
    return mass[len(given.support_rows) :]


@pytest.mark.parametrize(("n_shot", "k", "n_iterations"), [(1, None, 5), (2, None, 2), (3, 7, 9)])
def test_label_diffusion_is_that_of_dense_matrices(n_shot, k, n_iterations):
    given = episode(*collection(noise=0.8, n_images=12), n_shot=n_shot, n_query=9)
    scores = method("label_diffusion", k=k, n_iterations=n_iterations).scores(given)
    # Half of the images that a class has in the episode.
    expected = dense_diffusion(given, k or (n_shot + 9) // 2, n_iterations)
    assert expected.max(axis=1).min() > 0  # all are reached
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_images_that_no_label_reaches_have_the_class_of_the_nearest_mean():
    regions, classes = collection(n_images=9)
    given = episode(regions, classes, n_query=8)
    rng = np.random.default_rng(0)
    # Far from their own class and from all others, and near to each other.
    lonely = given.query_rows[given.query_classes == 3]
    rows = regions.features.array
    rows[lonely] = 5 * rows[classes == 2][0] - 4 * rows[classes == 0][0]
    rows[lonely] += 0.01 * rng.normal(size=rows[lonely].shape)
    scores = method("label_diffusion", k=3).scores(given)
    assert (dense_diffusion(given, 3, 5)[given.query_classes == 3] == 0).all()
    assert (scores[given.query_classes == 3].argmax(axis=1) == 2).all()


@pytest.mark.parametrize("name", [name for name in EASYFSL if name != "pt_map"])
def test_methods_of_easyfsl_are_its_classes(name):
    given = episode(*NOISY, n_shot=2)
    made = method(name)
    settings = dict(made.settings)
    if name == "matching_networks":
        support, query = (unit(vectors.astype(np.float64)) for vectors in given.vectors)
        votes = np.exp(query @ support.T)
        votes /= votes.sum(axis=1, keepdims=True)
        expected = np.log(votes @ np.eye(5)[given.support_classes] + 1e-6)
    else:
        classifier = getattr(easyfsl_methods, made.classifier)(**settings)
        support, query = map(torch.from_numpy, given.vectors)
        classifier.process_support_set(support, torch.from_numpy(given.support_classes))
        expected = classifier(query).detach().numpy()
    assert getattr(easyfsl_methods, made.classifier).is_transductive() is made.is_transductive
    np.testing.assert_allclose(made.scores(given), expected, rtol=1e-5)
    assert made.parameters().items() >= settings.items()


def test_pt_map_assigns_images_of_long_vectors_as_well():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 1280))
    rows = np.maximum(np.tile(centers, (6, 1)) + 0.8 * rng.normal(size=(30, 1280)), 0)
    regions = RegionFeatures(MemoryFeatures(rows, "images"), (1280, 1, 1))
    given = episode(regions, np.tile(np.arange(5), 6), n_query=5)

    def of_easyfsl(vectors, **settings):
        classifier = easyfsl_methods.PTMAP(fine_tuning_steps=30, fine_tuning_lr=0.3, **settings)
        support, query = map(torch.from_numpy, vectors)
        classifier.process_support_set(support, torch.from_numpy(given.support_classes))
        return classifier(query).numpy()

    # Its own transform leaves images without a class, in single precision.
    assert (of_easyfsl(given.vectors, feature_normalization=2).sum(axis=1) < 0.5).any()
    scores = method("pt_map").scores(given)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-3)
    np.testing.assert_allclose(scores.sum(axis=0), 5, rtol=1e-3)
    transformed = [unit(np.sqrt(vectors.astype(np.float64) + 1e-6)) for vectors in given.vectors]
    np.testing.assert_allclose(scores, of_easyfsl(transformed, power_factor=1.0), atol=1e-3)


# DeepEMD.


@pytest.mark.parametrize("name", DEEPEMD)
def test_variants_of_deepemd_are_logits_of_their_views(name):
    from lowshot_kedro.deepemd import emd_logits

    shapes = {"map": (6, 3, 3), "grid": (6, 5, 1), "sampling": (6, 4, 1)}
    classes = None
    views = {}
    for seed, (view, shape) in enumerate(shapes.items()):
        views[view], classes = collection(shape=shape, noise=0.8, seed=seed)
    given = replace(episode(views["map"], classes), views=views)
    made = method(name)
    support, query = map(torch.from_numpy, given.regions(made.view))
    if name == "deepemd_pyramid":
        support, query = (
            torch.cat(
                [
                    torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(2),
                    torch.nn.functional.adaptive_avg_pool2d(maps, 3).flatten(2),
                    maps.flatten(2),
                ],
                dim=2,
            )[:, :, None]
            for maps in (support, query)
        )
    expected = emd_logits(query, support, temperature=12.5, solver="pot").numpy()
    np.testing.assert_allclose(made.scores(given), expected, rtol=1e-4)
    others = [METHODS[other](OPTIONS).scores(given) for other in DEEPEMD if other != name]
    assert not any(np.allclose(expected, other, rtol=1e-3) for other in others)


def test_prototypes_of_deepemd_follow_from_the_seed_and_the_episode():
    given = episode(*NOISY, n_shot=3)

    def scores(seed, number):
        options = replace(OPTIONS, seed=seed)
        return METHODS["deepemd_fcn"](options).scores(replace(given, number=number))

    first = scores(1, 4)
    np.testing.assert_array_equal(scores(1, 4), first)
    assert not np.array_equal(scores(2, 4), first)
    assert not np.array_equal(scores(1, 5), first)


def test_parameters_of_deepemd_count():
    given = episode(*NOISY)
    settings = DeepEMDParameters(temperature=25.0, feature_pyramid=(1,))
    colder = METHODS["deepemd_pyramid"](MethodOptions(deepemd=settings))
    fcn = METHODS["deepemd_fcn"](MethodOptions(deepemd=settings))
    np.testing.assert_allclose(
        fcn.scores(given), 2 * method("deepemd_fcn").scores(given), rtol=1e-5
    )
    assert colder.parameters()["feature_pyramid"] == [1]
    assert colder.parameters()["temperature"] == 25.0
    assert not np.allclose(colder.scores(given), 2 * method("deepemd_pyramid").scores(given))
