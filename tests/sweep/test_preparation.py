import faiss
import numpy as np
import pytest

from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.graph import UnlabeledNodes, unlabeled_nodes
from lowshot_kedro.sweep.preparation import (
    build_background_graph,
    describe_data,
    possible_sweep,
)
from tests.features import MemoryFeatures

from .data import N_COLUMNS, N_COMPONENTS, SPLIT, MemoryInputs, features_of
from .making import make_settings


@pytest.fixture
def inputs():
    return MemoryInputs()


def describe(inputs, backgrounds=None, **changes):
    settings = make_settings(**{"sweep.n_background": [0, 70, None]} | changes)
    return describe_data(
        inputs.class_split,
        inputs.train_features,
        inputs.test_features,
        inputs.pca_transform,
        inputs.backgrounds if backgrounds is None else backgrounds,
        settings,
    )


def test_images_are_counted_by_mode_and_number(inputs):
    data = describe(inputs, **{"sweep.n_labeled": [1, 3]})
    # 200 training and 160 test images of eight classes; four classes in each mode, two of them
    # novel.
    for mode in ("val", "test"):
        for n_labeled in (1, 3):
            found = data.counts[mode, n_labeled]
            assert found.n_labeled == 2 * 25 + 2 * n_labeled
            assert found.n_unlabeled == 2 * (25 - n_labeled)
            assert (found.n_test, found.n_classes) == (4 * 20, 4)
    assert set(data.counts) == {(mode, n) for mode in ("val", "test") for n in (1, 3)}


def test_modes_of_different_sizes_are_told_apart(inputs):
    inputs.class_split = SPLIT | {"novel_classes_2": [4, 5, 6], "base_classes_2": [2]}
    data = describe(inputs)
    assert (data.counts["val", 2].n_classes, data.counts["val", 2].n_labeled) == (4, 54)
    assert (data.counts["test", 2].n_classes, data.counts["test", 2].n_labeled) == (4, 31)


def test_sizes_of_backgrounds_features_and_vectors(inputs):
    data = describe(inputs)
    assert data.n_background == {0: 0, 70: 70, None: 110}
    assert (data.n_features, data.n_components) == (N_COLUMNS, N_COMPONENTS)


def changed(inputs, change):
    before = describe(inputs)
    change(inputs)
    after = describe(inputs)
    facts = {name for name in before.facts if before.facts[name] != after.facts[name]}
    backgrounds = {
        n
        for n in before.background_facts
        if before.background_facts[n] != after.background_facts[n]
    }
    return facts, backgrounds


def test_the_same_data_are_described_alike():
    one, other = describe(MemoryInputs()), describe(MemoryInputs())
    assert one.facts == other.facts
    assert one.background_facts == other.background_facts


def relabel(inputs):
    labels = inputs.train_features.labels
    labels[[0, 1]] = labels[[1, 0]] if labels[0] != labels[1] else (labels[0] + 1) % 8


def change_feature(inputs):
    inputs.test_features.array[0, 0] += 1


def change_split(inputs):
    inputs.class_split = SPLIT | {"novel_classes_1": [6, 4]}


def change_transform(inputs):
    pca = faiss.PCAMatrix(N_COLUMNS, N_COMPONENTS, 0, False)
    pca.train(inputs.train_features.array)
    inputs.pca_transform = pca


def longer_features(inputs):
    inputs.train_features = features_of(208, 0, "train_features")


def change_vector(inputs):
    inputs.backgrounds[70].vectors[0, 0] += 1


def change_neighbor(inputs):
    inputs.backgrounds[None].neighbors.indices[0, 1] += 1


def change_index(inputs):
    nodes = inputs.backgrounds[70]
    index = faiss.index_factory(N_COMPONENTS, "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    unit = nodes.vectors / np.linalg.norm(nodes.vectors, axis=1)[:, None]
    index.train(unit)
    index.add(unit)
    inputs.backgrounds[70] = nodes._replace(search_index=index)


CHANGES = [
    (relabel, {"train_features"}, set()),
    (change_feature, {"test_features"}, set()),
    (longer_features, {"train_features"}, set()),
    (change_split, {"class_split"}, set()),
    (change_transform, {"pca_transform"}, set()),
    (change_vector, set(), {70}),
    (change_neighbor, set(), {None}),
    (change_index, set(), {70}),
]


@pytest.mark.parametrize(
    ("change", "facts", "backgrounds"), CHANGES, ids=[change.__name__ for change, _, _ in CHANGES]
)
def test_other_data_are_described_otherwise(inputs, change, facts, backgrounds):
    assert changed(inputs, change) == (facts, backgrounds)


def test_an_index_that_looks_through_more_lists_is_another_one(inputs):
    change_index(inputs)

    def look_through_more(inputs):
        inputs.backgrounds[70].search_index.nprobe = 3

    assert changed(inputs, look_through_more) == (set(), {70})


# --- what is impossible is left out, or refused before the first run ---


def few(inputs, n_train):
    """So many training images, of all classes alike."""
    inputs.train_features = features_of(n_train, 0, "train_features")
    return inputs


def possible(inputs, n_there=110, **changes):
    changed = {f"sweep.{name}": value for name, value in changes.items()}
    sweep = make_settings(**{"evaluation.top_k": [1, 3, 4, 5]} | changed).sweep
    parts = (inputs.class_split, inputs.train_features, inputs.test_features)
    return possible_sweep(sweep, *parts, n_there)


def test_numbers_of_images_that_there_are_not_are_left_out(inputs, caplog):
    # Each class has 25 training images.
    found = possible(inputs, n_labeled=[1, 26, 25, None, 99], n_background=[0, 300, 110, None, 111])
    assert found.n_labeled == (1, 25, None)
    assert found.n_background == (0, 110, None)
    assert caplog.messages == [
        "sweep.n_labeled: 26, 99 left out, as no novel class has more than 25 labelled images",
        "sweep.n_background: 300, 111 left out, as the background has 110 images",
    ]


def test_nothing_is_said_where_all_is_possible(inputs, caplog):
    found = possible(inputs, n_labeled=[1, 25, None], n_background=[0, 110, None])
    assert (found.n_labeled, found.n_background) == ((1, 25, None), (0, 110, None))
    assert possible(inputs, 0, unlabeled=["train"], n_background=[70]).n_background == (70,)
    assert not caplog.messages


def test_a_number_counts_that_the_largest_novel_class_of_each_mode_can_give(inputs, caplog):
    labels = inputs.train_features.labels
    keep = np.ones(len(labels), bool)
    # Labels 3 and 4 are the novel classes of mode test, 5 and 7 those of mode val.
    for label, n_kept in ((3, 3), (4, 12), (5, 1), (7, 20)):
        keep[np.flatnonzero(labels == label)[n_kept:]] = False
    inputs.train_features = MemoryFeatures(inputs.train_features.array[keep], "train_features")
    inputs.train_features.labels = labels[keep]
    assert possible(inputs, n_labeled=[12, 13, None]).n_labeled == (12, None)
    assert "no novel class has more than 12" in caplog.text
    data = describe(inputs, **{"sweep.n_labeled": [2, 12, None]})
    assert [data.counts["test", n].n_labeled for n in (2, 12, None)] == [54, 65, 65]
    assert [data.counts["val", n].n_labeled for n in (2, 12, None)] == [53, 63, 71]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_labeled": [26]}, r"n_labeled: got \[26\], but no novel class has more than 25"),
        (
            {"n_background": [111, 200]},
            r"n_background: got \[111, 200\], but the background has 110",
        ),
    ],
)
def test_numbers_of_which_none_is_possible_are_refused(inputs, changes, message):
    with pytest.raises(ValueError, match=f"^sweep.{message}.* null = all"):
        possible(inputs, **changes)


def test_an_accuracy_that_cannot_be_wrong_chooses_nothing(inputs):
    # Four classes in each mode.
    for k in (4, 5):
        with pytest.raises(ValueError, match=rf"^sweep.metric: got 'top{k}', .* 4 classes in mode"):
            possible(inputs, metric=f"top{k}")
    assert possible(inputs, metric="top3").metric == "top3"


@pytest.mark.parametrize("group", ["novel", "base"])
def test_an_accuracy_of_no_test_image_chooses_nothing(inputs, group):
    labels = inputs.test_features.labels
    here = np.isin(labels, {"novel": [7, 5], "base": [2, 0]}[group])
    inputs.test_features = MemoryFeatures(inputs.test_features.array[~here], "test_features")
    inputs.test_features.labels = labels[~here]
    with pytest.raises(ValueError, match=rf"^sweep.metric: got 'top1_{group}', but no test image"):
        possible(inputs, metric=f"top1_{group}")
    assert possible(inputs, metric="top1").metric == "top1"


ENOUGH = {"sweep.n_labeled": [1], "sweep.nearest_neighbors.k": [1], "sweep.diffusion.k": [2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # 8 images are labelled, or 6 + 2 with one of each novel class; 14 training images in all.
        (
            {"sweep.nearest_neighbors.k": [1, 9, 10]},
            "nearest_neighbors.k: % 9, 10 of 8 (n_labeled 1)",
        ),
        (
            {"sweep.nearest_neighbors.k": [9, 1, 11], "sweep.n_labeled": [1, 2, None]},
            "nearest_neighbors.k: % 9, 11 of 8 (n_labeled 1); 11 of 10 (n_labeled 2)",
        ),
        ({"sweep.diffusion.k": [2, 9]}, "diffusion.k: % 9 of 8 (n_labeled 1, no background)"),
        (
            {"sweep.label_spreading.n_neighbors": 9},
            "label_spreading.n_neighbors: % 9 of 8 (n_labeled 1, no background)",
        ),
        (
            {"sweep.diffusion.k": [13, 2], "sweep.unlabeled": ["train"]},
            "diffusion.k: % 13 of 12 (n_labeled 1, unlabelled training images)",
        ),
        (
            {"sweep.diffusion.k": [13, 2], "sweep.unlabeled": ["both"]},
            "diffusion.k: % 13 of 12 (n_labeled 1, no background, unlabelled training images)",
        ),
    ],
)
def test_more_neighbors_than_images_are_named(inputs, caplog, change, message):
    few(inputs, 24)
    describe(inputs, **ENOUGH | change)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "sweep." + message.replace("%", "left out where there are fewer images:")


@pytest.mark.parametrize(
    "change",
    [
        {"sweep.nearest_neighbors.k": [8], "sweep.diffusion.k": [8]},
        {"sweep.diffusion.k": [12], "sweep.unlabeled": ["both", "train"]},
        {"sweep.label_spreading.n_neighbors": 12, "sweep.unlabeled": ["train"]},
        # Nobody asks for them.
        {"sweep.nearest_neighbors.k": [9], "sweep.methods": ["diffusion"]},
        {
            "sweep.diffusion.k": [99], "sweep.label_spreading.n_neighbors": 99,
            "sweep.methods": ["nearest_neighbors", "logistic_regression"],
        },
    ],
)  # fmt: skip
def test_as_many_neighbors_as_images_are_possible(inputs, caplog, change):
    data = describe(few(inputs, 24), **ENOUGH | change)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert data.counts["test", 1].n_labeled == 8


def test_a_stored_graph_with_too_few_columns_is_refused():
    inputs = MemoryInputs(stored_k=4)
    with pytest.raises(ValueError, match=r"^background_graph: has 4 columns, .* at least k = 5"):
        describe(inputs, **{"sweep.diffusion.k": [5]})
    assert describe(inputs, **{"sweep.diffusion.k": [4]}).n_components == N_COMPONENTS


def test_parts_of_a_background_that_do_not_belong_together_are_refused(inputs):
    inputs.backgrounds[70] = inputs.backgrounds[70]._replace(
        search_index=inputs.backgrounds[None].search_index
    )
    with pytest.raises(ValueError, match=r"^background_vectors has 70 rows"):
        describe(inputs)


def test_training_images_need_no_background(inputs):
    data = describe(inputs, {}, **{"sweep.unlabeled": ["train"]})
    assert (data.n_background, data.background_facts) == ({}, {})


# --- the graph over a background ---


class MemoryCatalog:
    """Keeps what is saved, as the datasets on disk would."""

    def __init__(self, vectors, folder, stored_k=4):
        self.content = {
            "background_vectors": vectors,
            "params:graph": make_settings(
                **{"graph.k": 3, "graph.stored_k": stored_k}
            ).graph,
        }  # fmt: skip
        self.folder = folder
        self.saved = []

    def load(self, name):
        return self.content[name]

    def save(self, name, data):
        self.saved.append(name)
        content = data.begin(self.folder)
        if name == "background_graph":
            content = KnnGraph.joined(content.starting_at(0), content.n_columns)
        else:
            index = faiss.IndexFlatIP(content.n_columns)
            for block in content:
                index.add(block)
            content = index
        self.content[name] = content


def test_index_and_graph_of_a_background_are_built_as_stored(inputs, tmp_path):
    vectors = inputs.backgrounds[70].vectors
    catalog = MemoryCatalog(vectors, tmp_path, stored_k=8)
    build_background_graph(catalog, make_settings(**{"graph.method": "exact"}).graph)
    assert catalog.saved == ["background_index", "background_graph"]
    expected = unlabeled_nodes(vectors, 8, "exact", "background_vectors")
    found = UnlabeledNodes(vectors, *(catalog.load(f"background_{x}") for x in ("index", "graph")))
    assert found.search_index.ntotal == 70
    np.testing.assert_array_equal(found.neighbors.indices, expected.neighbors.indices)


def test_nothing_is_built_over_no_background(inputs, tmp_path):
    catalog = MemoryCatalog(inputs.backgrounds[0].vectors, tmp_path)
    build_background_graph(catalog, make_settings().graph)
    assert catalog.saved == []
