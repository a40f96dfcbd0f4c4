"""Series of slices and files of many frames as volumes: in order, complete, in one window."""

import numpy as np
import pytest
import torch
from torch import nn

import seewhy as sw
from scans import PATIENT, bytes_of, item, save, scan, slices
from seewhy.data.images import read_photo
from seewhy.errors import ImageError


def refused(source, **how):
    with pytest.raises(ImageError) as caught:
        sw.read_volume(source, **how)
    said = str(caught.value)
    assert not [value for value in PATIENT.values() if value in said]
    return said


def order(volume):
    """Which slice lies where: their lowest value is their number."""
    values = volume.pixels[0, 0].amin((1, 2)) * (100 + len(volume.pixels[0, 0]) - 1)
    return values.round().int().tolist()


def test_slices_are_ordered_by_their_place_and_not_by_name_or_number(tmp_path):
    volume = sw.read_volume(slices(tmp_path / "ct"))
    assert volume.pixels.shape == (1, 1, 5, 8, 10)
    assert volume.pixels.dtype == torch.float32
    assert order(volume) == [0, 1, 2, 3, 4]
    assert volume.pixels[0, 0, 4, 1, 2] == 1
    assert volume.pixels.argmax() % 80 == 1 * 10 + 2
    assert volume.spacing == (2.5, 0.5, 0.5)
    assert [name.rpartition("/")[2] for name in volume.files] == ["90.dcm", "89.dcm", "88.dcm", "87.dcm", "86.dcm"]
    assert volume.modality == "CT"
    assert "5 slices ordered by position" in volume.notes
    assert "no window in the files: from their lowest value, 0, to their highest, 104" in volume.notes


def test_places_count_along_the_normal_of_tilted_slices(tmp_path):
    """Sagittal slices: their normal is -x for rows along y and columns along -z; z is the same for all."""
    folder = tmp_path / "mr"
    folder.mkdir()
    for i, x in enumerate((30.0, 20.0, 10.0)):
        place = {
            "ImagePositionPatient": [x, 5, 5],
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
            "SeriesInstanceUID": "1.2",
        }
        save(folder / f"{3 - i}.dcm", np.full((2, 2), i, np.int16), **place)
    volume = sw.read_volume(folder)
    assert volume.pixels[0, 0, :, 0, 0].tolist() == [0, 0.5, 1]
    assert volume.spacing is None


def test_without_places_the_instance_numbers_order(tmp_path):
    volume = sw.read_volume(slices(tmp_path / "ct", ImagePositionPatient=[]))
    assert order(volume) == [4, 3, 2, 1, 0]
    assert volume.spacing == (None, 0.5, 0.5)
    assert "5 slices ordered by InstanceNumber, as positions are missing" in volume.notes


def test_one_window_for_all_slices(tmp_path):
    folder = slices(tmp_path / "ct", WindowCenter=50, WindowWidth=100, VOILUTFunction="LINEAR_EXACT")
    assert torch.allclose(sw.read_volume(folder).pixels[0, 0, :, 0, 0], torch.arange(5) / 100)
    assert torch.allclose(sw.read_volume(folder, window=(2, 4)).pixels[0, 0, :, 0, 0], torch.arange(5) / 4)
    slices(folder, 1, first=5, WindowCenter=40, WindowWidth=80)
    volume = sw.read_volume(folder)
    assert torch.allclose(volume.pixels[0, 0, :, 0, 0], torch.arange(6) / 100)
    assert "the slices have different windows: all are shown in the first one's" in volume.notes


def test_each_slice_has_its_own_slope_as_in_a_pet(tmp_path):
    for i, slope in enumerate((1.0, 4.0)):
        place = {
            "ImagePositionPatient": [0, 0, i],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "SeriesInstanceUID": "1.2",
        }
        save(tmp_path / f"{i}.dcm", np.array([[0, 100]], np.int16), RescaleSlope=slope, RescaleIntercept=0, **place)
    assert sw.read_volume(tmp_path).pixels.flatten().tolist() == [0, 0.25, 0, 1]


def test_a_slice_of_a_volume_and_the_same_file_alone_in_the_same_window_are_one_picture(tmp_path):
    folder = slices(tmp_path / "ct", PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=102)
    volume = sw.read_volume(folder, window=(52, 104))
    for i, (file, photo) in enumerate(zip(volume.files, volume.slices, strict=True)):
        alone = np.asarray(read_photo(file, window=(52, 104)).bands[0])
        assert (alone == volume.pixels[0, 0, i].numpy()).all()
        assert (alone == np.asarray(photo.bands[0])).all()
        assert photo.notes[0] == f"slice {i + 1} of 5"


def test_a_file_of_many_frames_is_a_volume(tmp_path):
    frames = np.arange(3 * 2 * 4, dtype=np.uint16).reshape(3, 2, 4)
    plain = sw.read_volume(save(tmp_path / "a.dcm", frames))
    assert np.allclose(plain.pixels[0, 0].numpy(), frames / 23)
    assert "3 frames as they are stored: their positions are not in the file" in plain.notes
    own = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in (4, 0, 2)]
    turned = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared = [item(PlaneOrientationSequence=[turned], PixelMeasuresSequence=[item(PixelSpacing=[1, 2])])]
    groups = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": own}
    placed = sw.read_volume(save(tmp_path / "b.dcm", frames, **groups))
    assert np.allclose(placed.pixels[0, 0].numpy(), frames[[1, 2, 0]] / 23)
    assert placed.spacing == (2, 1, 2)
    assert placed.files == (str(tmp_path / "b.dcm"),)


def test_other_files_of_a_folder_are_left_out_and_counted(tmp_path):
    folder = slices(tmp_path / "ct")
    (folder / "notes.txt").write_text("of another kind")
    (folder / "DICOMDIR").write_bytes(bytes_of(scan(np.zeros((2, 2), np.uint8))))
    (folder / ".hidden").write_bytes(b"x")
    volume = sw.read_volume(folder)
    assert volume.pixels.shape[2] == 5
    assert "2 other file(s) in the folder left out" in volume.notes


def test_slices_that_lie_unevenly_are_said(tmp_path):
    folder = slices(tmp_path / "ct", 3)
    place = {
        "ImagePositionPatient": [1, 2, 8.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
    }
    save(folder / "far.dcm", np.full((8, 10), 3, np.int16), SeriesInstanceUID="1.2.3.4", **place)
    assert "uneven slices: 2.5 to 3 mm apart, not resampled" in sw.read_volume(folder).notes


@pytest.mark.parametrize("positions", [{}, {"ImagePositionPatient": []}], ids=["positions", "numbers"])
def test_a_gap_and_a_duplicate_are_named(tmp_path, positions):
    folder = slices(tmp_path / "ct", **positions)
    (folder / "88.dcm").unlink()
    said = refused(folder)
    assert "a slice is missing" in said
    assert "89.dcm" in said
    assert "87.dcm" in said
    folder = slices(tmp_path / "twice", **positions)
    (folder / "copy.dcm").write_bytes((folder / "88.dcm").read_bytes())
    said = refused(folder)
    assert "two slices at one place, 0" in said
    assert "88.dcm" in said
    assert "copy.dcm" in said


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"SeriesInstanceUID": "9.9.9"}, "several series"),
        ({"size": (8, 11)}, "different widths"),
        ({"size": (9, 10)}, "different heights"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "different kinds of pixels"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, "differ in ImageOrientationPatient"),
        ({"PixelSpacing": [0.5, 0.6]}, "differ in PixelSpacing"),
    ],
)
def test_slices_that_are_not_of_one_volume_are_named(tmp_path, other, said):
    folder = slices(tmp_path / "ct")
    slices(folder, 1, first=5, **other)
    found = refused(folder)
    assert said in found
    assert "85.dcm" in found
    assert "9.9.9" not in found


def test_what_is_no_volume_at_all(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "a folder without a DICOM file" in refused(tmp_path / "empty")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert "no DICOM file" in refused(tmp_path / "a.png")
    folder = slices(tmp_path / "ct")
    save(folder / "color.dcm", np.zeros((8, 10, 3), np.uint8), SeriesInstanceUID="1.2.3.4")
    assert "color.dcm: a slice in colors" in refused(folder)
    save(folder / "color.dcm", np.zeros((2, 8, 10), np.uint8))
    assert "color.dcm: a file of several frames among slices" in refused(folder)
    (folder / "color.dcm").unlink()
    (folder / "88.dcm").write_bytes((folder / "88.dcm").read_bytes()[:-20])
    assert "truncated" in refused(folder)
    assert "no such file" in refused(tmp_path / "nothing")


def test_one_slice_is_a_volume_of_one(tmp_path):
    volume = sw.read_volume(slices(tmp_path / "ct", 1))
    assert volume.pixels.shape == (1, 1, 1, 8, 10)
    assert volume.spacing == (None, 0.5, 0.5)


def test_a_volume_goes_whole_through_a_3d_network_and_slice_by_slice_through_a_2d_one(tmp_path):
    volume = sw.read_volume(slices(tmp_path / "ct"))
    torch.manual_seed(0)
    whole = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    e = sw.explain(sw.wrap(whole, mean=[0.5], std=[0.5]), volume, "integrated_gradients", tolerance=0.01)
    assert e.raw.shape == (1, 5, 8, 10)
    assert e.parameters["baseline"] == "blur"
    assert e.sources[0].modality == "CT"
    assert float(e.evidence["completeness_gap_relative"][0]) < 0.01
    run = e.save(tmp_path / "run")
    assert sw.read_explanation(run).raw.shape == (1, 5, 8, 10)
    flat = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    by_slice = sw.explain(sw.wrap(flat, mean=[0.5], std=[0.5], size=(8, 10), crop=1.0), volume.slices, "gradient")
    assert by_slice.raw.shape == (5, 8, 10)
    assert torch.equal(by_slice.images[:, 0], volume.pixels[0, 0])
    assert by_slice.sources[2].notes[0] == "slice 3 of 5"
