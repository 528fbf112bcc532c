"""Against the format that Label Studio's own code accepted (SDK 2.1.2, validate_prediction)."""

import json
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.exports.label_studio import label_studio_config, label_studio_tasks
from tests.labeling.exports.making import ArrayImages, images_in, labeling_of

CLASSES = ('a & "b"', "line\nbreak", "<c>", "Ж")
NAMES = ["a.jpg", "b c+d%&é#?.jpg", "in/\udcff.jpg", "d.jpg", "e.jpg"]


def interface_of(config):
    """Names of image and choices, the key of the image in a task, and the choices."""
    view = ElementTree.fromstring(config)
    image, choices = view.find("Image"), view.find("Choices")
    assert view.tag == "View" and choices.get("toName") == image.get("name")
    assert image.get("value").startswith("$") and choices.get("choice") == "single"
    return (
        image.get("name"),
        choices.get("name"),
        image.get("value")[1:],
        [choice.get("value") for choice in choices.findall("Choice")],
    )


def problems_of(task, config):
    """What is wrong with a task; the rules of the tool, written down anew."""
    image, control, key, choices = interface_of(config)
    found = []
    if set(task) - {"data", "predictions", "annotations"}:
        found.append("unknown key")
    if not isinstance(task["data"].get(key), str):
        found.append("no image")
    if "id" in task["data"]:
        found.append("an id would replace the task's own")
    for prediction in task.get("predictions", []):
        if not isinstance(prediction.get("score"), float) or not 0 <= prediction["score"] <= 1:
            found.append("score")
        if not isinstance(prediction.get("model_version"), str):
            found.append("model_version")
    for answer in [*task.get("predictions", []), *task.get("annotations", [])]:
        for region in answer["result"]:
            if (region["from_name"], region["to_name"]) != (control, image):
                found.append("names")
            if region["type"] != "choices":
                found.append("type")
            chosen = region["value"]["choices"]
            if not isinstance(chosen, list) or not set(chosen) <= set(choices):
                found.append("choices")
    return found


@pytest.fixture
def labeling():
    return labeling_of(
        [0, 1, 2, 3, -1],
        [0, -1, -1, -1, -1],
        CLASSES,
        confidence=np.array([1, 0.98766, 1.0000001, 0.2, 0], np.float32),
        is_unknown=np.array([False, False, False, True, False]),
        report={"method": "diffusion"},
    )


def test_tasks_are_what_the_tool_imports(tmp_path, labeling):
    images = images_in(tmp_path / "photos", (".", NAMES))
    config = label_studio_config(CLASSES)
    tasks = json.loads(json.dumps(list(label_studio_tasks(images, labeling))))
    assert [problems_of(task, config) for task in tasks] == [[]] * 5
    assert interface_of(config)[3] == list(CLASSES)
    first, second, third, fourth, fifth = tasks
    result = {"from_name": "label", "to_name": "image", "type": "choices"}
    assert first == {
        "data": {"image": "/data/local-files/?d=photos/a.jpg", "file": "a.jpg"},
        "annotations": [{"result": [{**result, "value": {"choices": ['a & "b"']}}]}],
    }
    assert second["predictions"] == [
        {
            "model_version": "lowshot-kedro diffusion",
            "score": 0.9877,
            "result": [{**result, "value": {"choices": ["line\nbreak"]}}],
        }
    ]
    assert third["predictions"][0]["score"] == 1
    # Less sure than the threshold: people want to see the guess, and how sure it is.
    assert fourth["predictions"][0]["score"] == 0.2
    assert set(fifth) == {"data"}


def test_the_validator_of_this_test_finds_mistakes(tmp_path, labeling):
    config = label_studio_config(CLASSES)
    task = list(label_studio_tasks(images_in(tmp_path, (".", NAMES)), labeling))[1]
    prediction = task["predictions"][0]
    for wrong in (
        {**prediction, "score": 1.5},
        {**prediction, "result": [{**prediction["result"][0], "value": {"choices": ["x"]}}]},
        {**prediction, "result": [{**prediction["result"][0], "from_name": "choice"}]},
    ):
        assert problems_of({**task, "predictions": [wrong]}, config)
    assert problems_of({**task, "data": {**task["data"], "id": 3}}, config)


def test_addresses_lead_to_the_files_below_the_root(tmp_path, labeling):
    images = images_in(tmp_path / "photos", (".", NAMES))
    for root, given in [(tmp_path, None), (tmp_path.parent, tmp_path.parent)]:
        for number, task in enumerate(label_studio_tasks(images, labeling, given)):
            address = urlsplit(task["data"]["image"])
            assert address.path == "/data/local-files/" and not address.fragment
            (below,) = parse_qs(address.query, errors="surrogateescape")["d"]
            assert root / below == images.path(number)
            json.dumps(task, ensure_ascii=False).encode()


def test_a_root_that_the_images_are_not_below_is_refused(tmp_path, labeling):
    images = images_in(tmp_path / "photos", (".", NAMES))
    with pytest.raises(InputError, match=r"document_root: got .*expected a folder above"):
        label_studio_tasks(images, labeling, tmp_path / "other")


def test_images_that_are_no_files_are_left_out_and_counted(tmp_path, caplog):
    files = images_in(tmp_path / "photos", (".", ["a.jpg"]), ("../outside", ["b.jpg"]))
    images = JoinedImages([ArrayImages(2), *files.sources, ArrayImages(1)], tmp_path / "photos")
    tasks = label_studio_tasks(images, labeling_of([0] * 5, [-1] * 5), tmp_path / "photos")
    assert [task["data"]["file"] for task in tasks] == ["a.jpg"]
    assert "4 images are left out" in caplog.text
    caplog.clear()
    only_arrays = JoinedImages([ArrayImages(2)])
    assert list(label_studio_tasks(only_arrays, labeling_of([0, 1], [-1, -1]))) == []
    assert "2 images are left out" in caplog.text


def test_characters_that_xml_cannot_hold_are_replaced_alike_in_both():
    labeling = labeling_of([0, 1], [0, 1], classes=("bell\x07", "\udcff"))
    config = label_studio_config(labeling.given.classes)
    assert interface_of(config)[3] == ["bell\ufffd", "\ufffd"]
    config.encode()
