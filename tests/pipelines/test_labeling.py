"""From a folder of images and a handful of labels to labels for all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from lowshot_kedro import label_folder
from lowshot_kedro.errors import InputError
from lowshot_kedro.project.command_line import main
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.labeling_run import LabeledFolder
from tests.browser import BROWSER, SHIFT, Person, headless_browser
from tests.labeling.folders import NAMES, QUICK, some_of_each, write_labels, write_tree
from tests.projects import run

# The map is a test of its own.
FAST = {**QUICK, "map": "none"}
FILES = (
    "labels.csv", "labels.html", "labels_report.json", "next_to_label.csv",
    "suspicious_labels.csv", "duplicates.csv", "labels_reliability.png",
    "labels_confusion.png", "labels_map.png", "label_studio_tasks.json",
    "label_studio_config.xml", "fiftyone_labels.json", "fiftyone_labels.csv",
)  # fmt: skip
COLUMNS = [
    "file", "label", "confidence", "margin", "second_label", "n_steps", "nearest_labeled", "given",
    "guess",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("labelled by a file") / "photos"
    truth = write_tree(folder)
    write_labels(folder / "labels.csv", some_of_each(truth, 4))
    (folder / "roll 1" / "broken.jpg").write_bytes(b"no image")
    return folder, truth


@pytest.fixture(scope="module")
def labeled(photos: tuple[Path, dict[str, str]]) -> LabeledFolder:
    return label_folder(photos[0], output=photos[0].parent / "found", **FAST)


def accuracy(table: pd.DataFrame, truth: dict[str, str]) -> float:
    new = table[(table["given"] == "no") & table["file"].isin(truth.keys())]
    return float((new["label"] == new["file"].map(truth)).mean())


def made_from(output: Path) -> dict[str, float]:
    """When features, vectors, index and graph were written."""
    paths = [*output.glob("data/**/*.hdf5"), *output.glob("data/**/knngraph/ndis*")]
    paths += [*output.glob("data/**/*.raw"), *output.glob("data/**/*.vt")]
    assert len(paths) >= 6
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_every_image_has_a_label(
    photos: tuple[Path, dict[str, str]], labeled: LabeledFolder
) -> None:
    _, truth = photos
    table = labeled.labels
    assert [*table.columns] == COLUMNS
    assert sorted(table["file"]) == sorted([*truth, "roll 1/broken.jpg"])
    assert set(table["guess"]) <= {*NAMES, ""}
    given = table[table["given"] == "yes"]
    assert dict(zip(given["file"], given["label"], strict=True)) == dict(some_of_each(truth, 4))
    assert accuracy(table, truth) > 0.5
    for name in FILES:
        assert (labeled.output / name).stat().st_size > 0, name
    report = labeled.report
    assert (report["n_images"], report["n_labeled"], report["n_classes"]) == (151, 20, 5)
    assert {entry["name"]: entry["n_given"] for entry in report["classes"]} == dict.fromkeys(
        NAMES, 4
    )
    listed = labeled.next_to_label
    assert len(listed) == 50
    assert not set(listed["file"]) & set(given["file"])


def test_more_labels_change_neither_features_nor_graph(
    photos: tuple[Path, dict[str, str]], labeled: LabeledFolder
) -> None:
    folder, truth = photos
    before, first = made_from(labeled.output), labeled.labels
    # One label is corrected, one taken away, one of a new class given; more are added.
    rows = dict(some_of_each(truth, 6))
    files = [*rows]
    rows[files[0]], rows[files[1]], rows[files[2]] = NAMES[1], "", "seven"
    corrected = folder.parent / "corrected.csv"
    write_labels(corrected, rows.items())
    again = label_folder(folder, labels=corrected, output=labeled.output, **FAST)
    assert made_from(again.output) == before
    table = again.labels.set_index("file")
    given = {file: label for file, label in rows.items() if label}
    assert dict(table[table["given"] == "yes"]["label"]) == given
    assert "seven" in {entry["name"] for entry in again.report["classes"]}
    # And back: the same labels give the same bytes.
    label_folder(folder, output=labeled.output, **FAST)
    pd.testing.assert_frame_equal(again.labels, first)


@pytest.mark.parametrize("layout", ["train", "classes"])
def test_folders_name_classes(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    truth = write_tree(folder / "unsorted", per_class=8)
    for name in NAMES[:3]:
        for number, file in enumerate(f for f, of_file in truth.items() if of_file == name):
            inside = f"train/{name}" if layout == "train" else name
            outside = "background" if layout == "train" else "unlabeled"
            target = folder / (inside if number < 3 else outside) / f"{name}{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "unsorted" / file, target)
    shutil.rmtree(folder / "unsorted")
    (folder / ("train" if layout == "train" else "") / "empty").mkdir()
    found = label_folder(folder, output=tmp_path / "found", folder_tree="links", **FAST)
    table = found.labels
    assert len(table) == 24
    assert (table["given"] == "yes").sum() == 9
    assert set(table["label"]) == set(NAMES[:3])
    expected = table["file"].str.extract(r"([a-z]+)\d\.png")[0]
    assert (table["label"] == expected).mean() > 0.8
    assert any("empty" in note for note in found.report["label_notes"])
    tree = found.output / "labeled"
    for _, row in table.iterrows():
        links = list((tree / row["label"]).iterdir())
        assert any(path.resolve() == (folder / row["file"]).resolve() for path in links)


def test_labels_less_sure_than_wanted_are_unknown(
    photos: tuple[Path, dict[str, str]], labeled: LabeledFolder
) -> None:
    found = label_folder(photos[0], output=labeled.output, threshold=0.8, **FAST)
    table = found.labels
    is_unknown = table["label"] == "unknown"
    new = table[table["given"] == "no"]
    assert 0 < is_unknown.sum() < len(new)
    assert ((new["confidence"] < 0.8) == (new["label"] == "unknown"))[new["guess"] != ""].all()
    assert found.report["n_unknown"] == is_unknown.sum()
    assert accuracy(table[~is_unknown], photos[1]) > accuracy(
        table.assign(label=table["guess"]), photos[1]
    )


def test_annotations_come_back_from_label_studio(
    photos: tuple[Path, dict[str, str]], labeled: LabeledFolder
) -> None:
    folder, truth = photos
    label_folder(folder, output=labeled.output, **FAST)
    tasks = json.loads((labeled.output / "label_studio_tasks.json").read_text())
    for task in tasks:
        for prediction in task.get("predictions", []):
            assert 0 <= prediction["score"] <= 1
            # A person who agrees with all that is predicted.
            task["annotations"] = [{"result": prediction["result"], "was_cancelled": False}]
    exported = folder.parent / "export.json"
    exported.write_text(json.dumps(tasks))
    found = label_folder(folder, labels=exported, output=labeled.output, **FAST)
    given = found.labels[found.labels["given"] == "yes"]
    assert len(given) >= 150
    assert accuracy(given.assign(given="no"), truth) > 0.5


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_labels_corrected_on_the_page_are_honoured(
    photos: tuple[Path, dict[str, str]], labeled: LabeledFolder, tmp_path: Path
) -> None:
    folder, truth = photos
    label_folder(folder, output=labeled.output, **FAST)
    before = made_from(labeled.output)
    with headless_browser.opened_page(BROWSER, 1200, 900) as page:
        person = Person(page, tmp_path)
        person.opens(labeled.page, "#list=next")
        page.wait_for("document.querySelectorAll('.tile').length > 10")
        person.tabs_to("skip")
        person.presses("Enter")
        corrected = {}
        for _ in range(3):
            file = person.focused
            corrected[file] = truth[file]
            person.presses(str(sorted(NAMES).index(truth[file]) + 1))
        assert person.counted.startswith("3 corrections")
        person.tabs_to("save", modifiers=SHIFT)
        person.presses("Enter")
        rows = person.saved()
    assert dict(rows[1:]) == {**dict(some_of_each(truth, 4)), **corrected}
    path = tmp_path / "saved.csv"
    write_labels(path, rows[1:], *rows[0])
    found = label_folder(folder, labels=path, output=labeled.output, **FAST)
    assert made_from(found.output) == before
    given = found.labels[found.labels["given"] == "yes"]
    assert dict(zip(given["file"], given["label"], strict=True)) == dict(rows[1:])


def test_the_environment_of_own_images(
    project: Path, photos: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, truth = photos
    monkeypatch.setenv("IMAGES", str(folder))
    run(project, "labeling", env="own_images", **QUICK, labeling={"max_map_images": 100})
    results = project / "data" / "own_images" / "08_reporting"
    assert {path.name for path in results.iterdir()} >= set(FILES)
    assert accuracy(pd.read_csv(results / "labels.csv", keep_default_na=False), truth) > 0.5


def test_a_call_shows_warnings_alone_unless_asked(
    photos: tuple[Path, dict[str, str]],
    labeled: LabeledFolder,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for show, has_lines, has_table in (
        ("nothing", False, False),
        ("progress", False, True),
        ("everything", True, True),
    ):
        caplog.clear()
        label_folder(photos[0], output=labeled.output, show=show, **FAST)
        lines = [record.message for record in caplog.records if record.levelname == "INFO"]
        assert any("labeling.find_labels" in line for line in lines) == has_lines, show
        assert ("151 images, labels given for 20" in capsys.readouterr().out) == has_table, show


def test_the_command(
    photos: tuple[Path, dict[str, str]],
    labeled: LabeledFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = str(labeled.output)
    options = ["--output", output, "--method", "nearest_class_mean", "--accuracy", "0.9"]
    more = "features.image_size=32,features.num_workers=0,labeling.map=none,labeling.n_next=7"
    assert main(["label", str(photos[0]), *options, "--params", more]) == 0
    assert f"Open {labeled.page}" in capsys.readouterr().out
    assert labeled.report["method"] == "nearest_class_mean"
    assert len(labeled.next_to_label) == 7


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of six images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(folder / f"{number}.png")
    yield folder
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith("-labels")]


@pytest.mark.parametrize(
    ("rows", "parameters", "message"),
    [
        ([("0.png", "red")], {}, "one class only, red"),
        ([("7.png", "red"), ("8.png", "blue")], {}, "7.png"),
        ([("0.png", "red"), ("1.png", "blue"), ("0.png", "blue")], {}, "0.png"),
        ([("0.png", "red"), ("1.png", "blue")], {"method": "diffuson"}, "labeling.method"),
        ([("0.png", "red"), ("1.png", "blue")], {"accuracy": 95}, "labeling.accuracy"),
        ([("0.png", "red"), ("1.png", "unknown")], {"threshold": 0.5}, "unknown"),
    ],
)
def test_what_is_wrong_is_said_before_work_begins(
    folder: Path,
    rows: list[tuple[str, str]],
    parameters: dict[str, object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder.parent)
    write_labels(folder / "labels.csv", rows)
    with pytest.raises(UserError, match=message) as error:
        label_folder(folder, **QUICK, **parameters)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("written", ["photos/../photos", "link to photos"])
def test_results_do_not_go_into_the_folder_of_the_images(
    folder: Path, tmp_path: Path, written: str
) -> None:
    write_labels(folder / "labels.csv", [("0.png", "dark"), ("5.png", "light")])
    before = (folder / "labels.csv").read_bytes()
    (tmp_path / "link to photos").symlink_to(folder)
    with pytest.raises(InputError, match="folder of the images"):
        label_folder(folder, output=tmp_path / written, **QUICK)
    assert (folder / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["labels.csv", "duplicates.csv"])
def test_no_result_takes_the_place_of_given_labels(folder: Path, tmp_path: Path, name: str) -> None:
    labels = tmp_path / "found" / name
    labels.parent.mkdir()
    write_labels(labels, [("0.png", "dark"), ("5.png", "light")])
    before = labels.read_bytes()
    with pytest.raises(UserError, match=name):
        label_folder(folder, labels=labels, output=tmp_path / "found", **QUICK)
    assert labels.read_bytes() == before


def test_names_of_classes_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,label,guess,n_steps\na.png,01,01,1\nb.png,NA,NA,\n", encoding="utf-8"
    )
    (tmp_path / "next_to_label.csv").write_text(
        "file,label,perhaps,how_sure\na.png,,01,0.5\n", encoding="utf-8"
    )
    (tmp_path / "suspicious_labels.csv").write_text(
        "file,label,suspicion,suggested,nearest_labeled,nearest_label\na.png,1,0.9,01,b.png,1.0\n",
        encoding="utf-8",
    )
    (tmp_path / "duplicates.csv").write_text(
        "duplicates,file,similarity,label,perhaps\n1,a.png,1.0,01,1e5\n", encoding="utf-8"
    )
    found = LabeledFolder(tmp_path, tmp_path)
    assert found.labels["guess"].tolist() == ["01", "NA"]
    assert found.next_to_label["perhaps"].tolist() == ["01"]
    assert found.suspicious_labels["suggested"].tolist() == ["01"]
    assert found.suspicious_labels["nearest_label"].tolist() == ["1.0"]
    assert found.duplicates["perhaps"].tolist() == ["1e5"]


def test_six_images_and_two_labels_are_enough(folder: Path, tmp_path: Path) -> None:
    write_labels(folder / "labels.csv", [("0.png", "dark"), ("5.png", "light")])
    found = label_folder(folder, output=tmp_path / "found", **QUICK)
    assert set(found.labels["label"]) <= {"dark", "light", ""}
    assert "too few" in found.report["calibration_sentence"]


def test_a_file_of_labels_that_is_not_there_is_named_as_it_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ValueError, match=r"^mine\.csv: no such file; expected a file of labels$"):
        label_folder(folder, labels="mine.csv", **QUICK)


def test_what_is_odd_about_labels_is_said_before_work_begins(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "labels.csv").unlink(missing_ok=True)
    (folder / "train" / "empty").mkdir(parents=True)
    for name, number in (("dark", 0), ("light", 5)):
        (folder / "train" / name).mkdir()
        shutil.move(folder / f"{number}.png", folder / "train" / name / "1.png")
    (folder / "1.png").write_bytes(b"no image")
    label_folder(folder, output=tmp_path / "found", **QUICK)
    said = [text for text in caplog.messages if "empty" in text or "blank" in text]
    assert [text.partition(":")[0] for text in said] == ["labels", "image 0 is blank"]


def test_what_was_typed_into_the_list_counts_and_is_not_lost(
    photos: tuple[Path, dict[str, str]],
    labeled: LabeledFolder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, truth = photos
    label_folder(folder, output=labeled.output, **FAST)
    path = labeled.output / "next_to_label.csv"
    listed = pd.read_csv(path, dtype=str, keep_default_na=False)
    typed = dict(zip(listed["file"][:2], listed["file"][:2].map(truth), strict=True))
    listed.assign(label=listed["file"].map(typed).fillna("")).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"next_to_label.csv has labels that somebody typed .*2, "):
        label_folder(folder, output=labeled.output, **FAST)
    files = [folder / "labels.csv", path]
    found = label_folder(folder, labels=files, output=labeled.output, **FAST)
    given = found.labels[found.labels["given"] == "yes"]
    expected = {**dict(some_of_each(truth, 4)), **typed}
    assert dict(zip(given["file"], given["label"], strict=True)) == expected
    assert not set(found.next_to_label["file"]) & set(typed)
    # Now they are kept, and one may go on from there.
    again = label_folder(
        folder, labels=labeled.output / "given_labels.csv", output=labeled.output, **FAST
    )
    assert again.report["n_labeled"] == 22
    assert f"{folder / 'labels.csv'}: not read" in caplog.text
