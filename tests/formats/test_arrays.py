"""Arrays without geometry: spacing and axes are stated, else they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.cohorts.discovery import description
from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.reading import read_image, read_label
from delineate.core.errors import DelineateError, FormatError, GeometryError, LayoutError
from delineate.core.manifest import Manifest, Source
from delineate.formats import arrays, files

ZYX = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
SPACING = (2.5, 0.8, 0.7)


def test_axes_and_spacing_give_the_grid(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, ZYX)
    volume = files.read(Source(str(path), axes="SPL", spacing_mm=SPACING))
    assert volume.grid.codes == "SPL" and np.allclose(volume.spacing_mm, SPACING)
    assert np.array_equal(volume.array, ZYX) and not volume.meta["place_known"]
    # The same voxels as (x, y, z) of a NIfTI file on the axes RAS.
    turned, axes = volume.grid.reorient("RAS")
    assert turned.shape == (5, 4, 3)
    assert np.array_equal(axes.apply(volume.array), ZYX.transpose(2, 1, 0)[::-1, ::-1])
    colours = tmp_path / "c.npy"
    np.save(colours, np.stack([ZYX[0], ZYX[1]], -1))
    flat = files.read(Source(str(colours), axes="plc", spacing_mm=(0.8, 0.7)))
    assert flat.array.shape == (2, 4, 5, 1) and flat.grid.codes == "PLS"


@pytest.mark.parametrize(
    ("axes", "spacing", "message"),
    [
        ("", (), "stores no spacing and no axes.*axes: SPL"),
        ("SPL", (), "stores no spacing"),
        ("SPA", SPACING, "do not fit"),
        ("SP", SPACING, "do not fit"),
        ("SPL", (1.0, 1.0), "for 3 axes"),
    ],
)
def test_what_is_not_stated_or_does_not_fit_is_refused(tmp_path, axes, spacing, message):
    np.save(tmp_path / "a.npy", ZYX)
    with pytest.raises(GeometryError, match=message):
        files.read(Source(str(tmp_path / "a.npy"), axes=axes, spacing_mm=spacing))


def test_a_description_states_what_is_known(tmp_path):
    np.save(tmp_path / "a.npy", ZYX)
    bare = files.describe(tmp_path / "a.npy")
    assert bare["arrays"] == {"array": "3x4x5, float32"} and not bare["spacing_known"]
    volume = files.read(Source(str(tmp_path / "a.npy"), axes="SPL", spacing_mm=SPACING))
    files.write(volume, tmp_path / "b.npz")
    placed = files.describe(tmp_path / "b.npz")
    assert placed["orientation"] == "SPL" and placed["spacing_mm"] == [2.5, 0.8, 0.7]
    assert placed["arrays"]["voxels"] == "3x4x5, float32"


def test_archives_name_their_arrays_and_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image=ZYX, label=ZYX > 5)
    with pytest.raises(FormatError, match=r"several arrays; it has image, label.*\.npz#image"):
        files.read(Source(str(tmp_path / "a.npz"), axes="SPL", spacing_mm=SPACING))
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="array of numbers"):
        files.read(Source(str(tmp_path / "o.npy"), axes="S", spacing_mm=(1,)))


def cohort(root, save, ending):
    """Image and label in one file of each case; returns the description."""
    for n in range(3):
        label = np.zeros(ZYX.shape, np.uint8)
        label[1, 1:3, n : n + 2] = 1
        save(root / f"case_{n}{ending}", ZYX + n, label)
    text = (
        f"channels:\n  MR: '{{id}}{ending}#image'\nlabel: '{{id}}{ending}#label'\n"
        "spacing_mm: [2.5, 0.8, 0.7]\naxes: SPL\nlabels:\n  atrium: 1\n"
    )
    (root / "d.yaml").write_text(text)
    return root / "d.yaml"


def save_npz(path, image, label):
    np.savez_compressed(path, image=image, label=label)


def test_a_description_of_archives(tmp_path):
    found = discover(tmp_path, description=cohort(tmp_path, save_npz, ".npz"))
    manifest = Manifest.from_jsonl(found.manifest.to_jsonl())
    assert [case.id for case in manifest] == ["case_0", "case_1", "case_2"]
    case = manifest.cases[1]
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    assert np.array_equal(image.array[0], ZYX + 1) and int(label.array.sum()) == 4
    assert description.load(tmp_path / "d.yaml").axes == "SPL"
    # Without the description, the refusal says what is needed.
    (tmp_path / "d.yaml").unlink()
    with pytest.raises(LayoutError, match=r"arrays .* need spacing_mm and axes"):
        find(tmp_path)


def test_a_description_of_hdf5_files(tmp_path):
    h5py = pytest.importorskip("h5py")

    def save(path, image, label):
        with h5py.File(path, "w") as file:
            file["image"], file["label"] = image, label

    manifest = find(tmp_path, description=cohort(tmp_path, save, ".h5"))
    image = read_image(manifest.cases[2], manifest)
    assert np.array_equal(image.array[0], ZYX + 2)
    assert read_label(manifest.cases[2], manifest, image.grid).array.any()


def test_what_the_process_that_reads_hdf5_refuses(tmp_path):
    """Called as that process calls it; it ends when its work does, and is not measured."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["scans/image"], file["words"] = ZYX, np.array([b"a", b"b"])
        other = [(str(tmp_path / "other.raw"), 0, 8)]
        file.create_dataset("outside", (1,), np.float64, external=other)
        layout = h5py.VirtualLayout((2,), np.int16)
        layout[:] = h5py.VirtualSource(path.with_name("b.h5"), "x", shape=(2,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("huge", (1 << 40,), np.float64, chunks=(1 << 20,))
    names = ["huge", "outside", "scans/image", "virtual", "words"]
    assert arrays.sent_hdf5_names(str(path)) == ({"names": names}, [])
    assert np.array_equal(arrays.sent_hdf5(str(path), "scans/image", None)[1][0], ZYX)
    for item, message in (
        ("words", r"but numbers are needed"),
        ("outside", "its array is in other files"),
        ("virtual", "its array is in other files"),
        ("huge", "the header states .* GiB of data"),
        ("absent", "absent"),
        ("", "arrays"),
    ):
        with pytest.raises(DelineateError, match=message):
            arrays.sent_hdf5(str(path), item, None)
