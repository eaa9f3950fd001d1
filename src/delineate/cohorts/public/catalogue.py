"""The public data sets that ``download`` knows: their addresses, licences and checksums.

Checksums are those stated by the publishers or by the libraries that serve the files: MD5 of the
Decathlon as in MONAI's ``DecathlonDataset``, MD5 of the first OASIS-1 disc as in MONAI's tutorials,
MD5 of CHAOS as in its Zenodo record. If none is stated the field is empty, and ``download`` records
the checksum of what it receives. The project redistributes none of these files. This module opens
no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Remote:
    """One file of a data set.

    Args:
        url: its address.
        checksum: "md5:..." or "sha256:..." as published, or "".
        size_mb: approximate size (10^6 bytes); 0 if it is not published.
        file_name: the local name; if "", the end of the url.
        nested: the archive holds further archives, which are unpacked where they are.
        packed_anew: the server builds the archive for each download, so its bytes differ every
            time.
    """

    url: str
    checksum: str = ""
    size_mb: int = 0
    file_name: str = ""
    nested: bool = False
    packed_anew: bool = False

    @property
    def name(self) -> str:
        """The name of the local file."""
        return self.file_name or unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])


@dataclass(frozen=True)
class DataSet:
    """A public data set: its description, terms, and files."""

    name: str
    title: str
    licence: str
    home: str
    citation: str
    files: tuple[Remote, ...]

    @property
    def size_mb(self) -> int:
        """Approximate size of the download; 0 if the size of any file is unknown."""
        return sum(f.size_mb for f in self.files) if all(f.size_mb for f in self.files) else 0


# Name, task, MD5, MB and content of the Decathlon tasks.
_TASKS = (
    (
        "brain-tumour",
        "Task01_BrainTumour",
        "240a19d752f0d9e9101544901065d872",
        7100,
        "glioma in four MR sequences",
    ),
    ("heart", "Task02_Heart", "06ee59366e1e5124267b774dbd654057", 435, "left atrium in MR"),
    ("liver", "Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397", 26900, "liver and tumours in CT"),
    (
        "hippocampus",
        "Task04_Hippocampus",
        "9d24dba78a72977dbd1d2e110310f31b",
        27,
        "anterior and posterior hippocampus in T1 MR",
    ),
    (
        "prostate",
        "Task05_Prostate",
        "35138f08b1efaef89d7424d2bcc928db",
        229,
        "prostate zones in T2 and ADC MR",
    ),
    ("lung", "Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc", 8500, "lung tumours in CT"),
    (
        "pancreas",
        "Task07_Pancreas",
        "4f7080cfca169fa8066d17ce6eb061e4",
        11500,
        "pancreas and tumours in CT",
    ),
    (
        "hepatic-vessel",
        "Task08_HepaticVessel",
        "641d79e80ec66453921d997fbf12a29c",
        8700,
        "hepatic vessels and tumours in CT",
    ),
    ("spleen", "Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e", 1500, "spleen in CT"),
    ("colon", "Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0", 5900, "colon cancer in CT"),
)
_DECATHLON = (
    "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022)"
)
_OASIS_DISC_1 = "md5:c83e216ef8654a7cc9e2a30a4cdbe0cc"

_LISTED = (
    *(
        DataSet(
            f"decathlon-{name}",
            f"Medical Segmentation Decathlon {task.split('_')[0]}: {what}",
            "CC BY-SA 4.0",
            "http://medicaldecathlon.com",
            _DECATHLON,
            (
                Remote(
                    f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar",
                    f"md5:{md5}",
                    size_mb,
                ),
            ),
        )
        for name, task, md5, size_mb, what in _TASKS
    ),
    DataSet(
        "oasis-1",
        "OASIS-1 cross-sectional: 416 T1 brains of adults from 18 to 96, 12 discs, with "
        "automatic three-tissue labels",
        "OASIS data use agreement: free for research, acknowledge the project, no attempt to "
        "identify anybody",
        "https://sites.wustl.edu/oasisbrains/home/oasis-1/",
        "Marcus et al., Open Access Series of Imaging Studies, Journal of Cognitive Neuroscience "
        "19:1498 (2007)",
        tuple(
            Remote(
                f"https://download.nrg.wustl.edu/data/oasis_cross-sectional_disc{n}.tar.gz",
                # The publisher states no checksums; only the first disc has one from elsewhere.
                _OASIS_DISC_1 if n == 1 else "",
            )
            for n in range(1, 13)
        ),
    ),
    DataSet(
        "chaos",
        "CHAOS training sets: 20 abdominal CT with liver, 20 abdominal MR (T1 in and out of "
        "phase, T2) with liver, kidneys and spleen",
        "CC BY-NC-SA 4.0",
        "https://zenodo.org/records/3431873",
        "Kavur et al., CHAOS Challenge, Medical Image Analysis 69:101950 (2021)",
        (
            Remote(
                "https://zenodo.org/records/3431873/files/CHAOS_Train_Sets.zip",
                "md5:df21053002a1cc86df918a87da3b2c19",
                891,
            ),
        ),
    ),
    DataSet(
        "3d-ircadb-01",
        "3D-IRCADb-01: 20 contrast CT with liver, tumours, vessels and many other structures",
        "CC BY-NC-ND 3.0",
        "https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/",
        "Soler et al., 3D image reconstruction for comparison of algorithm database, IRCAD (2010)",
        (
            Remote(
                "https://cloud.ircad.fr/index.php/s/JN3z7EynBiwYyjy/download",
                file_name="3Dircadb1.zip",
                # The share sends a zip archive of zip archives, built for each download.
                nested=True,
                packed_anew=True,
            ),
        ),
    ),
)
DATA_SETS: dict[str, DataSet] = {one.name: one for one in _LISTED}
