"""Which files were published with the papers, where they are, and what each is needed for.

Sources: README.md and label_idx.json of github.com/facebookresearch/low-shot-with-diffusion;
README.md and download_models.sh of github.com/facebookresearch/DeeperCluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from lowshot_kedro.errors import InputError

BASE_URL = "https://dl.fbaipublicfiles.com/low-shot-diffusion"

# The class split is not beside the other files but in the original repository.
_CLASS_SPLIT_URL = (
    "https://raw.githubusercontent.com/facebookresearch/low-shot-with-diffusion/"
    "ac3f91a214621a7ecccc8d6e62cc963f6990869c/label_idx.json"
)

# DeeperCluster's own networks, those that it is compared with, and the images that it learnt from.
_DEEPERCLUSTER_URL = "https://dl.fbaipublicfiles.com/deepcluster"
# Name below DDIR → what follows that address.
_NETWORKS = {
    "ours.pth": "ours/ours.pth",
    "deepcluster_flickr.pth": "deepcluster/deepcluster_flickr.pth",
    "deepcluster_imagenet.pth.tar": "vgg16/checkpoint.pth.tar",
    "rotnet_flickr.pth": "rotnet/rotnet_flickr.pth",
    "rotnet_imagenet.pth": "rotnet/rotnet_imagenet.pth",
}
_IMAGE_IDS = "flickr_unique_ids.npy"

# Numbers of background images for which index and graph were published.
GRAPH_SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)

_VECTOR_BYTES = 256 * 4


@dataclass(frozen=True)
class PublishedFile:
    """A file that can be downloaded.

    Attributes:
        name: Its path below DDIR, where the environment `imagenet` reads what it needs.
        needed_for: What somebody does who needs it.
        server_path: Its path on the server, if that is not its name.
        elsewhere: The whole address, if it is on another server.
        n_background: The graph it belongs to; None: to no graph.
        row_bytes: Set where the first rows are of use without the others: bytes of a row.
        by_default: Whether the published experiment needs it.
    """

    name: str
    needed_for: str
    server_path: str | None = None
    elsewhere: str | None = None
    n_background: int | None = None
    row_bytes: int | None = None
    by_default: bool = True

    def address(self, base_url: str | None = None) -> str:
        """The URL that it is fetched from.

        Args:
            base_url: A mirror, which has what is elsewhere too, by its path below DDIR; None: the
                published address.
        """
        if self.elsewhere and base_url is None:
            return self.elsewhere
        return f"{(base_url or BASE_URL).rstrip('/')}/{self.server_path or self.name}"


def _graph_files(n_background: int) -> list[PublishedFile]:
    names = (".index", "_k32_I_11.int32", "_k32_D_11.float32")
    return [
        PublishedFile(
            f"knngraph/ndis{n_background}{name}",
            f"diffusion, graph.n_background={n_background}",
            n_background=n_background,
        )
        for name in names
    ]


def _deepercluster_file(name: str, path: str, needed_for: str) -> PublishedFile:
    return PublishedFile(
        f"deepercluster/{name}",
        needed_for,
        elsewhere=f"{_DEEPERCLUSTER_URL}/{path}",
        by_default=False,
    )


# The small ones first: what is wrong shows early.
PUBLISHED_FILES = (
    PublishedFile("label_idx.json", "baseline, diffusion", elsewhere=_CLASS_SPLIT_URL),
    PublishedFile(
        "features/PCAR256.vt", "diffusion", server_path="features/f100m/PCAR256.vt"
    ),
    PublishedFile("features/val.hdf5", "baseline, diffusion"),
    PublishedFile("features/train.hdf5", "baseline, diffusion"),
    *(file for n_background in GRAPH_SIZES for file in _graph_files(n_background)),
    PublishedFile(
        "features/f100m/concatenated_PCAR256.raw", "diffusion, graph", row_bytes=_VECTOR_BYTES
    ),
    *(
        PublishedFile(f"features/f100m/block{number}.hdf5", "pca anew", by_default=False)
        for number in (0, 1)
    ),
    *(
        _deepercluster_file(name, path, "features.extractor=deepercluster")
        for name, path in _NETWORKS.items()
    ),
    _deepercluster_file(_IMAGE_IDS, _IMAGE_IDS, "deepercluster on YFCC100M"),
)  # fmt: skip


def select_files(
    n_background: Sequence[int], names: Sequence[str] = (), everything: bool = False
) -> list[PublishedFile]:
    """The files that somebody wants.

    Args:
        n_background: Numbers of background images of the experiments; 0: one without background.
        names: These files only, by their whole names or what follows the last slash.
        everything: All files.

    Returns:
        Files in the order in which to fetch them. Without `names` and `everything`: what the
        published experiment needs, with the graphs of `n_background` as far as there are any, and
        the vectors unless `n_background` is 0 alone.

    Raises:
        ValueError: For a name that no file has, and for the name of the vectors if none of them
            are wanted.
    """
    if everything:
        return list(PUBLISHED_FILES)
    if names:
        wanted = {_file_named(name).name for name in names}
        files = [file for file in PUBLISHED_FILES if file.name in wanted]
        if max(n_background) == 0 and any(file.row_bytes for file in files):
            expected = "at least 1 to fetch vectors"
            raise InputError(parameter="n_background", found=0, expected=expected)
        return files
    return [
        file
        for file in PUBLISHED_FILES
        if file.by_default
        and (file.n_background is None or file.n_background in n_background)
        and (file.row_bytes is None or max(n_background) > 0)
    ]


def _file_named(name: str) -> PublishedFile:
    for file in PUBLISHED_FILES:
        if name in (file.name, PurePosixPath(file.name).name):
            return file
    known = [file.name for file in PUBLISHED_FILES]
    known += [PurePosixPath(name).name for name in known]
    similar = get_close_matches(name, known, n=1)
    advice = f"; did you mean {similar[0]}?" if similar else "; --list --all shows all files"
    raise InputError(f"{name}: no published file has this name{advice}")
