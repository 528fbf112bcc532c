import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.diffusion import (
    PropagationOptions,
    adjustments,
    labeled_rows,
    plan_memory,
    propagation_matrix,
    scores_per_step,
    scores_when_reached,
)
from lowshot_kedro.errors import InputError, NotEnoughMemoryError

from .cases import (
    BACKENDS,
    MATRICES,
    N_ITERATIONS,
    STEPS,
    ints,
    larger_matrix,
    larger_problem,
    larger_truth,
    run,
    two_nodes,
)
from .strategies import matrix_variants, problems, step_variants
from .truth import (
    dense_matrix,
    dense_scores,
    dense_start,
    relative_difference,
    scale_columns,
)

# --- start ---


def as_matrix(labeled, n_nodes):
    scores = np.zeros((n_nodes, labeled.n_columns))
    scores[labeled.rows, labeled.columns] = labeled.values
    return scores


def test_the_start_worked_out_by_hand():
    found = labeled_rows(ints(1, 0, 1, 3), 0, 4)
    expected = np.zeros((6, 4))
    expected[[0, 2], 1] = 1 / 2
    expected[1, 0] = expected[3, 3] = 1
    np.testing.assert_array_equal(as_matrix(found, 6), expected)
    np.testing.assert_array_equal(found.all_rows, [0, 1, 2, 3])
    assert (found.rows.dtype, found.columns.dtype) == (np.int32, np.int32)
    assert (found.values.dtype, found.n_columns) == (np.float32, 4)


def test_the_start_of_numbered_nodes_is_in_their_rows():
    found = labeled_rows(ints(1, 0, 1), 1, 2, rank=ints(3, 1, 0, 2))
    np.testing.assert_array_equal(as_matrix(found, 4), [[0.5], [0], [0], [0.5]])
    np.testing.assert_array_equal(found.all_rows, [3, 1, 0])


def test_the_start_of_labelled_nodes_that_stand_anywhere():
    found = labeled_rows(ints(1, 0, 1), 0, 2, ints(3, 1, 0, 2), ints(2, 0, 0))
    np.testing.assert_array_equal(as_matrix(found, 4), [[0, 0.5], [0, 0], [0, 0], [1, 0.5]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_labelled_nodes_may_stand_anywhere_and_have_labels_of_several_classes(backend):
    problem = larger_problem()
    matrix = larger_matrix("constant")
    rng = np.random.default_rng(0)
    nodes = rng.permutation(400)[:30].astype(np.int32)
    nodes[20:] = nodes[:10]
    classes = np.arange(30, dtype=np.int32) % 7
    everyone = np.arange(400, dtype=np.int32)[:, None]
    found = run(matrix, classes, everyone, 7, 3, backend=backend, labeled_nodes=nodes)
    dense, start = dense_matrix(problem.neighbors), np.zeros((400, 7))
    start[nodes, classes] = 1
    scores = scale_columns(start)
    for step in range(4):
        np.testing.assert_allclose(found[step], scores, rtol=1e-4, atol=1e-9)
        scores = scale_columns(dense @ scores)


@settings(deadline=None, max_examples=60)
@given(problems(), st.data())
def test_columns_of_the_start_sum_to_one_and_slices_are_columns(problem, data):
    labels, n_classes, n_nodes = problem.labeled_classes, problem.n_classes, len(problem.neighbors)
    whole = as_matrix(labeled_rows(labels, 0, n_classes), n_nodes)
    np.testing.assert_allclose(whole, dense_start(labels, n_nodes, n_classes), rtol=1e-7)
    first = data.draw(st.integers(0, n_classes))
    last = data.draw(st.integers(first, n_classes))
    rank = np.array(data.draw(st.permutations(range(n_nodes))), np.int32)
    part = labeled_rows(labels, first, last, rank)
    np.testing.assert_array_equal(as_matrix(part, n_nodes)[rank], whole[:, first:last])
    np.testing.assert_array_equal(part.all_rows, rank[: len(labels)])


# --- worked out by hand ---


def path(**variant):
    """0 – 1 – 2, whose middle lists both ends."""
    return propagation_matrix(ints([-1, -1], [0, 2], [-1, -1]), **variant)


@pytest.mark.parametrize("node_ordering", ["given", "clustered"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_propagation_worked_out_by_hand(backend, node_ordering):
    # Node 0 is of class 0, node 1 of class 1.
    found = run(
        path(node_ordering=node_ordering), ints(0, 1), ints([0, 2], [1, -1]), 2, 2, backend=backend
    )
    # Class 0: (1, 0, 0) → (0, 1, 0) → (½, 0, ½). Class 1: (0, 1, 0) → (½, 0, ½) → (0, 1, 0).
    expected = [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]]]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_restored_labels_worked_out_by_hand(backend):
    # Node 0 is of class 0: (1, 0, 0) → (0, 1, 0) → (1, 1, 0) / 2 → (½, ½, ½) / 1.5, with node 0
    # restored (1, ⅓, ⅓) / (5/3).
    found = run(path(), ints(0), ints([0], [1], [2]), 1, 2, backend=backend, clamping=True)
    # W (½, ½, 0) = (½, ¼, ½) → (2/5, 1/5, 2/5) → (1, 1/5, 2/5) / 1.6
    expected = [[[1], [0], [0]], [[0.5], [0.5], [0]], [[0.625], [0.125], [0.25]]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_power_worked_out_by_hand(backend):
    # 0 lists itself and 1: W = ⅔ ⅓; 1 0. (1, 0) → (⅔, 1) → (2/5, 3/5) → (4/13, 9/13).
    matrix = propagation_matrix(ints([0, 1], [-1, -1]))
    found = run(matrix, ints(0), ints([0], [1]), 1, 1, backend=backend, power=2)
    np.testing.assert_allclose(found[1], [[4 / 13], [9 / 13]], rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prior_multiplies_the_columns_of_every_step(backend):
    task = ints(0, 1), ints([0, 2], [1, -1]), 2, 2
    plain = run(path(), *task, backend=backend)
    found = run(path(), *task, 1, backend, class_prior=[1, 3])
    np.testing.assert_array_equal(found, plain * np.float32([0.5, 1.5]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_zero_counts_labelled_neighbours(backend):
    matrix = propagation_matrix(ints([1], [0], [0], [0]))
    links = ints([0, 1, 2], [2, 3, -1], [3, -1, -1], [0, 0, 1])
    found = run(matrix, ints(0, 0, 1), links, 2, 0, backend=backend)
    np.testing.assert_array_equal(found, [[[1, 1], [0, 1], [0, 0], [1.5, 0]]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_of_an_isolated_node_vanish_with_the_first_step(backend):
    matrix = propagation_matrix(ints([-1], [2], [1]))
    found = run(matrix, ints(0, 1), ints([0], [1]), 2, 2, backend=backend)
    assert found[0].tolist() == [[1, 0], [0, 1]]
    assert not found[1:, :, 0].any()
    assert found[2].tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_of_an_isolated_node_stay_where_they_are_restored(backend):
    matrix = propagation_matrix(ints([-1], [2], [1]))
    found = run(matrix, ints(0), ints([0], [1]), 1, 3, backend=backend, clamping=True)
    np.testing.assert_array_equal(found, [[[1], [0]]] * 4)


# --- against double precision ---


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=50)
@given(data=st.data(), problem=problems(), variant=matrix_variants, n_iterations=st.integers(0, 4))
def test_scores_are_those_of_dense_double_precision(backend, data, problem, variant, n_iterations):
    node_ordering = data.draw(st.sampled_from(["given", "clustered"]))
    adjusted = data.draw(step_variants(problem))
    neighbors, similarities = problem.neighbors, problem.similarities
    matrix = propagation_matrix(
        neighbors, similarities=similarities, node_ordering=node_ordering, **variant
    )
    found = run(matrix, *problem.task, n_iterations, 0, backend, **adjusted)
    expected = dense_scores(
        dense_matrix(neighbors, similarities, **variant), *problem.task, n_iterations, **adjusted
    )
    # A power multiplies relative errors by the exponent, step after step.
    assert relative_difference(found, expected) < 1e-6 * max(adjusted["power"], 1) ** n_iterations
    if not adjusted["clamping"]:
        missing = ~np.isin(np.arange(problem.n_classes), problem.labeled_classes)
        assert not found[:, :, missing].any()


@pytest.mark.parametrize("node_ordering", ["given", "clustered"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_variant_of_a_larger_problem_is_that_of_double_precision(
    backend, matrix, steps, node_ordering
):
    found = run(
        larger_matrix(matrix, node_ordering), *larger_problem().task, N_ITERATIONS, 0, backend,
        **STEPS[steps],
    )  # fmt: skip
    assert relative_difference(found, larger_truth(matrix, steps)) < 1e-6
    assert found.any(axis=(1, 2)).all()
    assert not found[:, :, 3].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_steps_stay_exact(backend):
    problem = larger_problem()
    found = run(larger_matrix("constant"), *problem.task, 20, backend=backend)
    expected = dense_scores(dense_matrix(problem.neighbors), *problem.task, 20)
    assert relative_difference(found, expected) < 1e-6


@pytest.mark.parametrize("node_ordering", ["given", "clustered"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_half_precision_is_exact_to_a_hundredth(matrix, node_ordering):
    found = run(
        larger_matrix(matrix, node_ordering), *larger_problem().task, N_ITERATIONS, 0,
        precision="bfloat16",
    )  # fmt: skip
    difference = relative_difference(found, larger_truth(matrix, "plain"))
    assert 1e-5 < difference < 0.01


@settings(deadline=None, max_examples=40)
@given(problem=problems(), variant=matrix_variants, n_iterations=st.integers(0, 3))
def test_half_precision_of_small_problems(problem, variant, n_iterations):
    neighbors, similarities = problem.neighbors, problem.similarities
    matrix = propagation_matrix(neighbors, similarities=similarities, **variant)
    found = run(matrix, *problem.task, n_iterations, 0, precision="bfloat16")
    expected = dense_scores(
        dense_matrix(neighbors, similarities, **variant), *problem.task, n_iterations
    )
    assert relative_difference(found, expected) < 0.01


# --- the same bits ---

PRECISE = [(b, "float32") for b in ("native", "torch", "scipy")] + [("native", "bfloat16")]


def engines(names):
    """Back ends, precisions, and those of the steps that they can make."""
    float32 = [
        pytest.param(*backend.values, "float32", steps, marks=backend.marks)
        if hasattr(backend, "marks")
        else (backend, "float32", steps)
        for backend in BACKENDS
        for steps in names
    ]
    plain = [steps for steps in names if not {"power", "clamping"} & set(STEPS[steps])]
    return float32 + [("native", "bfloat16", steps) for steps in plain]


@pytest.mark.parametrize("matrix", ["constant", "gaussian"])
@pytest.mark.parametrize("class_slice", [1, 2, 3, 5, 6, 100, "auto"])
@pytest.mark.parametrize(("backend", "precision", "steps"), engines(["plain", "all"]))
def test_slices_of_classes_change_no_bit(backend, precision, class_slice, matrix, steps):
    case = larger_matrix(matrix), *larger_problem().task, N_ITERATIONS
    variant = {"precision": precision, **STEPS[steps]}
    whole = run(*case, 0, backend, **variant)
    np.testing.assert_array_equal(whole, run(*case, class_slice, backend, **variant))


@pytest.mark.parametrize(("backend", "precision"), PRECISE)
@settings(deadline=None, max_examples=30)
@given(
    data=st.data(),
    problem=problems(max_classes=9),
    n_iterations=st.integers(0, 4),
    class_slice=st.integers(1, 9),
)
def test_slices_of_small_problems_change_no_bit(
    backend, precision, data, problem, n_iterations, class_slice
):
    variant = data.draw(step_variants(problem)) if precision == "float32" else {}
    case = propagation_matrix(problem.neighbors), *problem.task, n_iterations
    whole = run(*case, 0, backend, precision=precision, **variant)
    found = run(*case, class_slice, backend, precision=precision, **variant)
    np.testing.assert_array_equal(whole, found)


@pytest.mark.parametrize("n_iterations", [0, 1, N_ITERATIONS])
@pytest.mark.parametrize(("backend", "precision", "steps"), engines(STEPS))
def test_the_last_step_alone_is_the_last_of_every_step(backend, precision, n_iterations, steps):
    case = larger_matrix("constant"), *larger_problem().task, n_iterations, 3, backend
    variant = {"precision": precision, **STEPS[steps]}
    every = run(*case, **variant)
    last = run(*case, every_step=False, **variant)
    assert every.shape == (n_iterations + 1, 50, 7)
    np.testing.assert_array_equal(last, every[-1:])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_of_nodes_do_not_show(backend, steps):
    given, clustered = (
        run(
            larger_matrix("gaussian", node_ordering), *larger_problem().task, N_ITERATIONS, 0,
            backend, **STEPS[steps],
        )
        for node_ordering in ("given", "clustered")
    )  # fmt: skip
    assert relative_difference(clustered, given.astype(np.float64)) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", ["plain", "all"])
def test_the_arguments_stay_as_they_are(backend, steps):
    problem = larger_problem()
    matrix = propagation_matrix(problem.neighbors, node_ordering="clustered")
    arrays = [
        matrix.rows.indptr, matrix.rows.indices, matrix.rows.mutual, matrix.rank,
        problem.labeled_classes, problem.test_neighbors,
    ]  # fmt: skip
    before = [array.copy() for array in arrays]
    run(matrix, *problem.task, 3, 2, backend, **STEPS[steps])
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- sizes ---


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", ["plain", "all"])
def test_without_test_points_there_are_no_scores(backend, steps):
    problem = larger_problem()
    found = run(
        larger_matrix("constant"), problem.labeled_classes, np.empty((0, 5), np.int32), 7, 2, 3,
        backend, **STEPS[steps],
    )  # fmt: skip
    assert found.shape == (3, 0, 7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("restore", [False, True])
def test_without_labels_all_scores_are_zero(backend, restore):
    found = run(two_nodes(), ints(), ints([0, 1], [1, -1]), 3, 2, 0, backend, clamping=restore)
    np.testing.assert_array_equal(found, np.zeros((3, 2, 3)))


def test_a_million_classes_go_in_slices():
    rng = np.random.default_rng(0)
    neighbors = rng.integers(0, 30, (30, 4), dtype=np.int32)
    # At both ends of slices; what the classes between them have is nothing.
    classes = np.array([0, 65535, 65536, 131071, 131072, 999_999])
    few = rng.permutation(np.arange(12) % 6).astype(np.int32)
    links = ints([3, 7, 20, 1])
    matrix, options = propagation_matrix(neighbors), PropagationOptions(0, "native")
    assert plan_memory(matrix, 1, 10**6, 1, options).class_slice == 65536
    found = run(matrix, classes[few].astype(np.int32), links, 10**6, 1, every_step=False)
    expected = dense_scores(dense_matrix(neighbors), few, links, 6, 1)[1:]
    assert found.shape == (1, 1, 10**6)
    assert relative_difference(found[:, :, classes], expected) < 1e-6
    assert np.count_nonzero(found) == np.count_nonzero(expected) > 3


# --- faults ---


@pytest.mark.parametrize(
    ("labeled_classes", "message"),
    [
        (ints(0, 2), r"labeled_classes: found 0\.\.2, expected 0\.\.1"),
        (ints(-1, 1), r"labeled_classes: found -1\.\.1, expected 0\.\.1"),
        (ints(0, 1, 0), "labeled_classes: 3 labels for 2 nodes"),
    ],
)
def test_classes_that_do_not_fit_are_refused(labeled_classes, message):
    with pytest.raises(InputError, match=message):
        run(two_nodes(), labeled_classes, ints([0]), 2, 1)


@pytest.mark.parametrize(
    ("labeled_nodes", "message"),
    [
        (ints(0), "labeled_nodes: got 1 nodes for 2 labels"),
        (ints(0, 2), r"labeled_nodes: found 0\.\.2, expected 0\.\.1"),
        (ints(1, 1), "labeled_nodes: a node has a label twice"),
    ],
)
def test_labelled_nodes_that_do_not_fit_are_refused(labeled_nodes, message):
    with pytest.raises(InputError, match=message):
        run(two_nodes(), ints(0, 0), ints([0]), 2, 1, labeled_nodes=labeled_nodes)


@pytest.mark.parametrize("n_iterations", [0, 1, 2])
@pytest.mark.parametrize("bad", [2, -2])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("node_ordering", ["given", "clustered"])
def test_test_neighbours_out_of_range_are_refused(backend, bad, n_iterations, node_ordering):
    matrix = propagation_matrix(ints([0, 1], [1, 0]), node_ordering=node_ordering)
    message = rf"test_neighbors: row 1, column 1 holds {bad}, expected -1 or 0\.\.1"
    with pytest.raises(InputError, match=message):
        run(matrix, ints(0), ints([0, 1], [0, bad]), 1, n_iterations, backend=backend)


@pytest.mark.parametrize("variant", [{"power": 2.0}, {"clamping": True}])
@pytest.mark.parametrize("backend", ["auto", "native"])
def test_adjustments_in_half_precision_are_refused(variant, backend):
    message = "precision: got 'bfloat16', which .* cannot change; use float32"
    with pytest.raises(InputError, match=message):
        run(two_nodes(), ints(0), ints([0]), 1, 1, 0, backend, precision="bfloat16", **variant)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("flat", "class_prior: got 'flat', expected one of: uniform, labeled, or a list"),
        ([1, 1, 1], "class_prior: got 3 numbers, expected one for each of the 2 classes"),
        ([1, -1], r"class_prior: got \[1, -1\], expected numbers of at least 0"),
        ([0, 0], r"class_prior: got \[0, 0\], expected numbers of at least 0, not all of them 0"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior, message):
    with pytest.raises(InputError, match=f"{message}"):
        run(two_nodes(), ints(0), ints([0]), 2, 1, class_prior=prior)


# --- step after step ---


@pytest.mark.parametrize("steps", STEPS)
def test_steps_without_end_are_those_of_a_propagation(steps):
    case = larger_matrix("constant"), *larger_problem().task
    variant = dict(STEPS[steps])
    names = ("power", "clamping")
    changes = adjustments(**{name: variant.pop(name) for name in names if name in variant})
    # All classes at once, whatever slice is asked for.
    found = scores_per_step(*case, PropagationOptions(3, adjustments=changes, **variant))
    # The last step of a propagation is rounded otherwise.
    expected = run(*case, N_ITERATIONS, **STEPS[steps])[:-1]
    for of_step, scores in zip(expected, found, strict=False):
        np.testing.assert_array_equal(scores, of_step)


# --- nodes that are far away ---


def test_scores_of_far_nodes_are_those_of_the_step_that_reaches_them():
    # A chain of 9 nodes labelled at its ends, and two nodes that nobody is linked to.
    nodes = np.arange(11)
    neighbors = np.stack([nodes, nodes + 1], axis=1)
    neighbors[8:, 1] = [-1, 10, -1]
    matrix = propagation_matrix(neighbors.astype(np.int32))
    labels, ends = ints(0, 1), ints(0, 8)
    everyone = np.arange(11, dtype=np.int32)[:, None]
    per_step = run(matrix, labels, everyone, 2, 6, labeled_nodes=ends)
    far = ints(2, 3, 4, 5, 6, 9, 10)
    for most, reached in ((6, far[:5]), (3, ints(2, 3, 5, 6)), (1, ints())):
        found = scores_when_reached(matrix, labels, far, 2, 1, most, labeled_nodes=ends)
        weighed = scores_when_reached(
            matrix, labels, far, 2, 1, most, PropagationOptions(class_prior=[0, 1]),
            labeled_nodes=ends,
        )  # fmt: skip
        # A class that counts for nothing goes on from node to node all the same.
        np.testing.assert_array_equal(weighed, found * [0, 2])
        for node, scores in zip(far.tolist(), found, strict=True):
            step = min(node, 8 - node)
            expected = per_step[step, node] if node in reached else [0, 0]
            np.testing.assert_array_equal(scores, expected)


def test_some_of_the_far_nodes_get_what_all_of_them_would_get():
    # Chains of 12 and of 4 nodes.
    everyone = np.arange(16, dtype=np.int32)
    neighbors = np.stack([everyone, everyone + 1], axis=1)
    neighbors[[11, 15], 1] = -1
    matrix = propagation_matrix(neighbors)
    far = everyone[2:]
    expected = scores_when_reached(matrix, ints(0), far, 2, 1, 20, labeled_nodes=ints(0))
    assert (expected[:10, 0] > 0).all()
    assert not expected[10:].any()
    for some in (ints(9), ints(4, 11, 13), ints(14)):
        found = scores_when_reached(matrix, ints(0), some, 2, 1, 20, labeled_nodes=ints(0))
        np.testing.assert_array_equal(found, expected[some - 2])


def test_only_too_little_memory_is_said_as_such():
    matrix, nodes = two_nodes(), ints(0, 1)
    with pytest.raises(NotEnoughMemoryError):
        scores_when_reached(matrix, ints(0), nodes, 1, 1, 2, memory_budget_bytes=10)
    for labels, options in ((ints(3), {}), (ints(0), {"backend": "gpu"})):
        with pytest.raises(InputError) as caught:
            scores_when_reached(matrix, labels, nodes, 1, 1, 2, **options)
        assert not isinstance(caught.value, NotEnoughMemoryError)
