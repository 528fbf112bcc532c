"""Training by DeeperCluster: what comes out, and that bad sizes are named first."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lowshot_kedro.deepercluster import final_clustering
from lowshot_kedro.deepercluster.final_clustering import cluster_trained
from lowshot_kedro.deepercluster.training import DeeperClusterJob, train_deepercluster
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.unsupervised_file import unsupervised_from_tensors
from lowshot_kedro.training import stopping
from tests.deepercluster.making import parameters
from tests.training.making import ALONE, MadeImages, Stop, stopped_after


def job(folder: Path, **changes) -> DeeperClusterJob:
    values = {"network": "small", "image_size": 16, "epochs": 2, "cluster_every": 1}
    settings = parameters(**{**values, "n_super_classes": 8, "n_clusters": 6, **changes})
    return DeeperClusterJob(MadeImages(40, size=16), settings, folder)


def test_a_network_its_clusters_and_a_table_come_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = train_deepercluster(job(tmp_path / "whole"))
    assert [row["epoch"] for row in found.table] == [1, 2]
    assert ["normalized_mutual_information" in row for row in found.table] == [False, True]
    clustering = found.clustering
    assert clustering is not None and clustering.folder.name == "clustering-000001"
    assert len(clustering) == 40 and clustering.offsets[-1] == 6
    # That of the round before is needed no more.
    assert len(list(tmp_path.glob("whole/*/clustering-*"))) == 1

    network = unsupervised_from_tensors(found.description, found.network, "trained")
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 12)
    assert found.description.facts["kind"] == "DeeperCluster"

    # It is there from now on, and a stop in the second epoch changes nothing.
    with caplog.at_level(logging.INFO):
        again = train_deepercluster(job(tmp_path / "whole"))
    assert "trained already, from the same: kept" in caplog.text
    with pytest.raises(Stop), stopped_after(9):
        train_deepercluster(job(tmp_path / "stopped", checkpoint_minutes=0))
    stopped = train_deepercluster(job(tmp_path / "stopped", checkpoint_minutes=0))
    for other in (again, stopped):
        assert other.table == found.table
        assert all(torch.equal(other.network[name], each) for name, each in found.network.items())
        np.testing.assert_array_equal(other.clustering.labels(), clustering.labels())


def test_a_signal_waits_until_the_last_clustering_can_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = job(tmp_path, epochs=1)
    train_deepercluster(own)
    come: list[int] = []

    def cluster_images(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)
        assert come == []
        stopping.stop_if_wanted(ALONE, "a pass")
        assert come == [signal.SIGUSR1]
        raise Stop

    monkeypatch.setattr(final_clustering, "cluster_images", cluster_images)
    before = signal.signal(signal.SIGUSR1, lambda number, _: come.append(number))
    try:
        with pytest.raises(Stop):
            cluster_trained(own)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_rotnet_has_no_clusters(tmp_path: Path) -> None:
    found = train_deepercluster(job(tmp_path, n_super_classes=4, n_clusters=1, epochs=1))
    assert found.clustering is None
    assert found.table[0]["loss_sub_class"] == 0 < found.table[0]["loss_super_class"]


def test_bad_sizes_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n_clusters: got 42, expected at most 40, the images"):
        train_deepercluster(job(tmp_path / "new", n_clusters=42))
    assert not list(tmp_path.iterdir())
