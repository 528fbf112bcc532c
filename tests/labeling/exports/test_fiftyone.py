import json
from pathlib import Path

import numpy as np
import pytest

from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.exports.fiftyone import fiftyone_frame, fiftyone_labels
from tests.labeling.exports.making import ArrayImages, images_in, labeling_of


@pytest.fixture
def images(tmp_path):
    files = images_in(tmp_path, ("cats", ["a.jpg"]), (".", ["x.jpg", "y.jpg", "z.jpg"]))
    return JoinedImages([ArrayImages(1), *files.sources], tmp_path)


@pytest.fixture
def labeling():
    return labeling_of(
        [1, 0, 1, 0, -1],
        [-1, 0, -1, -1, -1],
        confidence=np.array([0.9, 1, 0.77777, 0.3, 0], np.float32),
        is_unknown=np.array([False, False, False, True, False]),
    )


def test_the_table_has_absolute_paths_of_the_files(images, labeling, tmp_path):
    frame = fiftyone_frame(images, labeling)
    assert frame.columns[0] == "filepath"
    assert frame["filepath"].tolist() == [
        str(tmp_path / name) for name in ("cats/a.jpg", "x.jpg", "y.jpg", "z.jpg")
    ]
    assert all(Path(path).is_absolute() for path in frame["filepath"])
    assert frame["label"].tolist() == ["cat", "dog", "unknown", ""]
    assert frame["confidence"].tolist() == [1, 0.7778, 0.3, 0]


def test_classifications_have_a_confidence_and_none_is_null(images, labeling, tmp_path):
    found = json.loads(json.dumps(fiftyone_labels(images, labeling)))
    assert found == {
        "classes": ["cat", "dog"],
        "labels": {
            str(tmp_path / "cats/a.jpg"): {"label": "cat", "confidence": 1.0},
            str(tmp_path / "x.jpg"): {"label": "dog", "confidence": 0.7778},
            str(tmp_path / "y.jpg"): None,
            str(tmp_path / "z.jpg"): None,
        },
    }
    for each in filter(None, found["labels"].values()):
        assert each["label"] in found["classes"]
