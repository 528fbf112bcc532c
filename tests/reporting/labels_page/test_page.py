"""The files of a page; test_in_browser.py has what people see."""

import io
import itertools

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from lowshot_kedro.datasets import LabelsPageDataset
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.label_files import LabelRow
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.parameters import LabelingParameters
from tests.reporting.labels_page.making import (
    Shades,
    chunk,
    folders,
    labeling_of,
    names_below,
    page_of,
    summary,
)

CLASSES = ("cat", "dog")


def shades_page(n_images, labels, confidence, given=None, **changes):
    given = [-1] * n_images if given is None else given
    labeling = labeling_of(CLASSES, given, labels, confidence)
    return page_of(JoinedImages([Shades(n_images)]), labeling, **changes)


def listed(path, name):
    """All images of a list, by their numbers, and the most on a page of it."""
    view = next(view for view in summary(path)["views"] if view["name"] == name)
    pages = [chunk(path, f"{name}/{page}")["records"] for page in range(view["pages"])]
    files = [record[0] for record in itertools.chain(*pages)]
    assert len(files) == view["n"]
    return [int(file.removeprefix("image ")) for file in files], max(map(len, pages), default=0)


def test_every_image_is_on_a_page_of_its_class_the_most_certain_first(tmp_path):
    rng = np.random.default_rng(0)
    labels, confidence = rng.integers(-1, 2, 1000), rng.random(1000)
    confidence[labels < 0] = 0
    given = np.full(1000, -1)
    given[:4], labels[:4], confidence[:4] = [0, 0, 1, 1], [0, 0, 1, 1], 1
    path = tmp_path / "labels.html"
    shades_page(1000, labels, confidence, given).write(path)
    for number in range(2):
        found, max_on_page = listed(path, f"class-{number}")
        assert max_on_page <= 200
        assert sorted(found) == np.flatnonzero(labels == number).tolist()
        assert found[:2] == np.flatnonzero(given == number).tolist()
        assert (np.diff(confidence[found[2:]]) <= 0).all()
    unreached, _ = listed(path, "unreached")
    assert unreached == np.flatnonzero(labels < 0).tolist()
    unknown, _ = listed(path, "unknown")
    is_unknown = (confidence < 0.3) & (labels >= 0) & (given < 0)
    assert sorted(unknown) == np.flatnonzero(is_unknown).tolist()
    assert (np.diff(confidence[unknown]) <= 0).all()


def test_a_record_says_what_is_known_of_an_image(tmp_path):
    path = tmp_path / "labels.html"
    page = shades_page(3, [0, 1, -1], [1, 0.25, 0], [0, -1, -1])
    page.write(path)
    given, unknown = (chunk(path, f"class-{n}/0")["records"][0] for n in range(2))
    assert given[:7] == ["image 0", 0, 1.0, 1, 0.5, 0, 0]
    assert unknown[:7] == ["image 1", 1, 0.25, 0, 0.125, -1, 1]
    assert (given[8], unknown[8]) == (0, 1)
    assert summary(path)["facts"] == [
        ["images", 3], ["labels given", 1], ["classes", 2], ["unknown", 1], ["unreached", 1],
    ]  # fmt: skip


def test_classes_at_a_glance_have_their_ends(tmp_path):
    labels = np.arange(60) % 2
    confidence = np.linspace(0.99, 0.31, 60)
    given = np.full(60, -1)
    given[:2] = labels[:2]
    path = tmp_path / "labels.html"
    shades_page(60, labels, confidence, given).write(path)
    content = chunk(path, "glance/0")
    assert content["groups"] == [[0, "cat"], [12, "dog"]]
    found, _ = listed(path, "glance")
    evens = list(range(2, 60, 2))
    assert found[:12] == evens[:6] + evens[-6:]
    odds = list(range(3, 60, 2))
    assert found[12:] == odds[:6] + odds[-6:]


def test_a_collection_too_large_shows_lists_and_ends(tmp_path):
    labels = np.arange(3000) % 2
    confidence = np.linspace(0.99, 0.31, 3000)
    source = Shades(3000)
    page = page_of(
        JoinedImages([source]),
        labeling_of(CLASSES, [-1] * 3000, labels, confidence),
        next_images=NextImages(np.array([1501, 1499], np.int32), "A rule."),
        parameters=LabelingParameters(page_images=100),
    )
    path = tmp_path / "labels.html"
    page.write(path)
    found, _ = listed(path, "class-0")
    evens = list(range(0, 3000, 2))
    assert found == evens[:25] + evens[-25:]
    assert listed(path, "next")[0] == [1501, 1499]
    # No other image was made small.
    assert set(source.asked_for) == {*found, *listed(path, "class-1")[0], 1499, 1501}
    assert "3000 images are more than the 100" in summary(path)["notes"][-1]
    view = next(view for view in summary(path)["views"] if view["name"] == "class-0")
    assert view["total"] == 1500
    assert "the 25 most certain and the 25 least certain" in view["text"]


def test_lists_keep_their_order_and_what_is_said_of_images(tmp_path):
    page = shades_page(
        8, [0] * 8, [0.9] * 8, [0, 0, *[-1] * 6],
        suspicious=SuspiciousLabels(np.array([1, 0], np.int32), np.array([0.9, 0.6], np.float32),
                                    np.array([1, 0], np.int32), "A rule."),
        duplicates=Duplicates(np.array([6, 7, 2, 3, 4], np.int32),
                              np.array([0, 0, 1, 1, 1], np.int32),
                              np.array([1, 1, 0.99, 0.99, 0.985], np.float32)),
        broken=[(5, "image 5: half of it")],
    )  # fmt: skip
    path = tmp_path / "labels.html"
    page.write(path)
    assert listed(path, "suspicious")[0] == [1, 0]
    first = chunk(path, "suspicious/0")["records"][0][9]
    assert first == {"suggested": 1, "suspicion": 0.9}
    content = chunk(path, "duplicates/0")
    assert content["groups"] == [[0, "Group 1"], [2, "Group 2"]]
    assert [record[9]["similarity"] for record in content["records"]] == [1, 1, 0.99, 0.99, 0.985]
    (record,) = chunk(path, "broken/0")["records"]
    assert (record[0], record[7], record[9]) == ("image 5", "", {"problem": "image 5: half of it"})


@pytest.mark.parametrize("sizes", [[150, 100], [3, 450, 2], [200, 200, 1], [2] * 101 + [401]])
def test_groups_are_not_torn_apart_unless_a_page_is_too_small(tmp_path, sizes):
    numbers = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    n_images = len(numbers)
    similarity = np.ones(n_images, np.float32)
    duplicates = Duplicates(np.arange(n_images, dtype=np.int32), numbers, similarity)
    path = tmp_path / "labels.html"
    # What is broken gets no thumbnail, which takes a while.
    broken = [(number, "broken") for number in range(n_images)]
    shades_page(n_images, [-1] * n_images, [0] * n_images, duplicates=duplicates,
                broken=broken).write(path)  # fmt: skip
    found, max_on_page = listed(path, "duplicates")
    assert found == list(range(n_images))
    assert max_on_page <= 200
    view = next(view for view in summary(path)["views"] if view["name"] == "duplicates")
    pages_of: dict[str, list[int]] = {}
    for number in range(view["pages"]):
        content = chunk(path, f"duplicates/{number}")
        starts = [start for start, _ in content["groups"]]
        ends = [*starts[1:], len(content["records"])]
        assert starts[0] == 0
        assert sorted(starts) == starts
        for (_, title), start, end in zip(content["groups"], starts, ends, strict=True):
            pages_of.setdefault(title, []).append(end - start)
    assert [sum(parts) for parts in pages_of.values()] == sizes
    for size, parts in zip(sizes, pages_of.values(), strict=True):
        assert len(parts) == -(-size // 200)


def test_images_that_cannot_be_made_small_are_broken_too(tmp_path):
    images = folders(tmp_path / "images", ["a.png"], ["b.png", "c.png"])
    (tmp_path / "images/others/c.png").write_bytes(b"no image")
    page = page_of(images, labeling_of(CLASSES, [0, -1, -1], [0, 1, 1], [1, 0.9, 0.8]))
    page.write(tmp_path / "labels.html")
    (record,) = chunk(tmp_path / "labels.html", "broken/0")["records"]
    assert record[0] == "others/c.png"
    assert "cannot identify image file" in record[9]["problem"]


def test_given_labels_come_with_those_taken_away_and_with_groups(tmp_path):
    images = folders(tmp_path / "images", ["a.png", "b.png"], ["c.png", "d.png", "e.png"])
    labeling = labeling_of(
        CLASSES, [0, -1, 1, -1, -1], [0, 1, 1, 0, 0], [1, 0.9, 1, 0.8, 0.7], [0, -1, -1, 1, -1],
        ["left eye", "right eye"],
    )  # fmt: skip
    path = tmp_path / "labels.html"
    page_of(images, labeling).write(path)
    assert summary(path)["hasGroups"] is True
    # b was given a label by its folder, which a file took away.
    assert chunk(path, "given/0") == [
        ["labeled/a.png", 0, 1, "left eye"],
        ["labeled/b.png", -1, 1, ""],
        ["others/c.png", 1, 0, ""],
        ["others/d.png", -1, 0, "right eye"],
    ]


def test_rows_of_missing_files_are_cut_into_chunks_too(tmp_path):
    rows = [LabelRow(f"gone/{number}.png", "cat") for number in range(5001)]
    rows[5000] = LabelRow("last", None, "far", True)
    labeling = labeling_of(CLASSES, [0, 1], [0, 1], [1, 1], missing=rows)
    path = tmp_path / "labels.html"
    page_of(JoinedImages([Shades(2)]), labeling).write(path)
    assert summary(path)["givenFiles"] == 3 and summary(path)["hasGroups"] is True
    assert chunk(path, "given/0") == [["image 0", 0, 0, ""], ["image 1", 1, 0, ""]]
    assert chunk(path, "given/1") == [[f"gone/{n}.png", "cat", 1, ""] for n in range(5000)]
    assert chunk(path, "given/2") == [["last", -1, 1, "far", 1]]


def test_checked_labels_say_so(tmp_path):
    images = folders(tmp_path / "images", ["a.png", "b.png"], ["c.png"])
    labeling = labeling_of(
        CLASSES, [0, 1, -1], [0, 1, 1], [1, 1, 0.9], checked=[False, True, False]
    )
    path = tmp_path / "labels.html"
    page_of(images, labeling).write(path)
    assert chunk(path, "given/0") == [["labeled/a.png", 0, 1, ""], ["labeled/b.png", 1, 1, "", 1]]
    flags = {name: flags for name, *_, flags in chunk(path, "class-1/0")["records"]}
    assert flags == {"labeled/b.png": 2 | 4, "others/c.png": 2}


def test_the_same_is_written_twice(tmp_path):
    images = folders(tmp_path / "images", ["a.png", "b.png"], ["c.png"])
    page = page_of(images, labeling_of(CLASSES, [0, 1, -1], [0, 1, 1], [1, 1, 0.9]))
    path = tmp_path / "labels.html"
    page.write(path)
    first = {name: (tmp_path / name).read_bytes() for name in names_below(tmp_path)}
    page.write(path)
    assert {name: (tmp_path / name).read_bytes() for name in names_below(tmp_path)} == first


def test_a_new_page_leaves_nothing_of_the_old_one(tmp_path):
    images = folders(tmp_path / "images", ["a.png", "b.png"], ["c.png"])
    out = tmp_path / "out"
    out.mkdir()
    first, second = (
        page_of(images, labeling_of(CLASSES, [0, 1, -1], [0, 1, label], [1, 1, 0.9]))
        for label in range(2)
    )
    second.write(out / "labels.html")
    alone = names_below(out)
    first.write(out / "labels.html")
    second.write(out / "labels.html")
    assert names_below(out) == alone


class Unwritable:
    """A plot that cannot be read: an error in the midst of writing."""

    def read_bytes(self):
        raise OSError("no plot")


def test_a_page_that_cannot_be_written_leaves_the_old_one_whole(tmp_path):
    images = folders(tmp_path / "images", ["a.png", "b.png"], ["c.png"])
    path = tmp_path / "out" / "labels.html"
    path.parent.mkdir()
    labelings = [labeling_of(CLASSES, [0, 1, -1], [0, 1, label], [1, 1, 0.9]) for label in (0, 1)]
    page_of(images, labelings[0]).write(path)
    before = {name: (path.parent / name).read_bytes() for name in names_below(path.parent)}
    with pytest.raises(OSError, match="no plot"):
        page_of(images, labelings[1], plots={"map": Unwritable()}).write(path)
    after = {name: (path.parent / name).read_bytes() for name in names_below(path.parent)}
    assert before.items() <= after.items()
    page_of(images, labelings[0]).write(path)
    assert names_below(path.parent) == set(before)


def test_plots_are_files_or_their_content(tmp_path):
    images = JoinedImages([Shades(2)])
    buffer = io.BytesIO()
    Image.new("RGB", (70, 30)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    plots = {"reliability": buffer.getvalue(), "what ../ever": tmp_path / "a.png"}
    path = tmp_path / "labels.html"
    page_of(images, labeling_of(CLASSES, [0, 1], [0, 1], [1, 1]), plots=plots).write(path)
    found = summary(path)["plots"]
    assert [(plot["width"], plot["height"]) for plot in found] == [(70, 30)] * 2
    assert found[0]["title"] == "Reliability of the confidence"
    for plot in found:
        content = (tmp_path / summary(path)["data"] / plot["file"]).read_bytes()
        assert content == buffer.getvalue()


def test_the_dataset_saves_loads_and_previews(tmp_path):
    page = shades_page(5, [0, 1, 0, 1, -1], [1, 1, 0.9, 0.8, 0], [0, 1, -1, -1, -1])
    dataset = LabelsPageDataset(filepath=str(tmp_path / "new" / "labels.html"))
    assert not dataset.exists()
    dataset.save(page)
    assert dataset.exists()
    assert dataset.load() == tmp_path / "new" / "labels.html"
    assert dataset.files_in_use() == [tmp_path / "new" / "labels.html"]
    rows = dict(row[:2] for row in dataset.preview()["data"])
    assert rows.items() >= {"images": "5", "labels given": "2", "unreached": "1"}.items()
    # A page that was copied without what it loads.
    (tmp_path / "new" / "labels_files").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="labels_files beside it is not there"):
        dataset.load()
