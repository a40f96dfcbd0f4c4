"""DICOM files of every kind that hospitals and data sets have, as the pixels that a radiologist is shown."""

import logging
import re
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

import seewhy as sw
from scans import PATIENT, bytes_of, item, save, scan
from seewhy.data.images import as_rgb, folder_images, read_photo, to_input
from seewhy.data.tags import quiet
from seewhy.errors import ImageError, MissingExtraError, UsageError

RAMP = np.arange(-1000, 1000, 100, dtype=np.int16).reshape(4, 5)


def band(path, **how):
    return np.asarray(read_photo(path, **how).bands[0])


def refused(path, **how):
    """What is said of a file that cannot be read; never a word of its patient."""
    with pytest.raises(ImageError) as caught:
        read_photo(path, **how)
    said = str(caught.value)
    assert str(path) in said
    assert not [value for value in PATIENT.values() if value in said]
    assert caught.value.__cause__ is None
    return said


def linear(values, center, width):
    """PS3.3 C.11.2.1.2.1, as it stands there, with y from 0 to 1."""
    shown = np.empty(values.shape)
    for place, x in np.ndenumerate(np.asarray(values, float)):
        if x <= center - 0.5 - (width - 1) / 2:
            shown[place] = 0
        elif x > center - 0.5 + (width - 1) / 2:
            shown[place] = 1
        else:
            shown[place] = (x - (center - 0.5)) / (width - 1) + 0.5
    return shown


# -- from stored values to what is seen ------------------------------------------------------------------------------------


def test_stored_values_are_rescaled_and_seen_through_the_first_window(tmp_path):
    path = save(
        tmp_path / "a.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-24, WindowCenter=[40, 300], WindowWidth=[400, 9]
    )
    photo = read_photo(path)
    assert photo.modality == "CT"
    assert photo.size == (4, 5)
    assert photo.bands[0].mode == "F"
    assert np.allclose(band(path), linear(2.0 * RAMP - 24, 40, 400), atol=1e-7)
    assert photo.notes == ("window 1 of 2: center 40, width 400",)


@pytest.mark.parametrize(("window", "center", "width"), [(2, 300, 9), ((-600, 1500), -600, 1500), ([0.5, 1], 0.5, 1)])
def test_another_window_is_asked_for(tmp_path, window, center, width):
    path = save(tmp_path / "a.dcm", RAMP, WindowCenter=[40, 300], WindowWidth=[400, 9])
    assert np.allclose(band(path, window=window), linear(RAMP, center, width), atol=1e-7)
    assert dict(read_photo(path, window=window).read_as) == {"window": window}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("LINEAR_EXACT", lambda x: np.clip((x - 50) / 400 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 50) / 400))),
    ],
)
def test_the_window_has_the_function_that_the_file_says(tmp_path, kind, expected):
    path = save(tmp_path / "a.dcm", RAMP, WindowCenter=50, WindowWidth=400, VOILUTFunction=kind)
    assert np.allclose(band(path), expected(RAMP.astype(float)), atol=1e-7)
    assert kind in read_photo(path).notes[0]


def test_monochrome1_is_inverted_and_padding_is_black(tmp_path):
    values = np.array([[0, 10, 20], [30, 40, 9999]], np.uint16)
    window = {"WindowCenter": 20.5, "WindowWidth": 41}
    path = save(tmp_path / "a.dcm", values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=9999, **window)
    assert np.allclose(band(path), [[1, 0.75, 0.5], [0.25, 0, 0]])
    assert "inverted (MONOCHROME1)" in read_photo(path).notes
    assert "padding, 17 % of the pixels, is black" in read_photo(path).notes


def test_a_range_of_padding_is_no_measurement(tmp_path):
    values = np.array([[-2000, -1500, -1024], [0, 500, 976]], np.int16)
    path = save(tmp_path / "a.dcm", values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1500)
    assert np.allclose(band(path), [[0, 0, 0], [0.512, 0.762, 1]])
    assert "from its lowest value, -1024, to its highest, 976" in read_photo(path).notes[0]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_without_a_window_the_stored_range_is_shown_and_said(tmp_path, bits):
    values = (np.arange(20, dtype=np.uint16) * (2**bits // 20)).reshape(4, 5)
    path = save(tmp_path / "a.dcm", values, BitsStored=bits, HighBit=bits - 1)
    assert np.allclose(band(path), np.arange(20).reshape(4, 5) / 19, atol=1e-6)
    assert read_photo(path).notes[0].startswith("no window in the file: from its lowest value, 0, to its highest,")


def test_a_signed_image_of_12_bits(tmp_path):
    values = np.array([[-2048, -1], [0, 2047]], np.int16)
    stored = (values & 0x0FFF).astype(np.uint16)  # the upper four bits are none of its own
    path = save(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    assert np.allclose(band(path), (values + 2048.0) / 4095)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "explicit"])
@pytest.mark.parametrize(("bits", "kind"), [(16, "<u2"), (8, "<u2"), (8, "u1")])
def test_lookup_tables_take_the_place_of_slope_and_window(tmp_path, syntax, bits, kind):
    values = np.array([[0, 5], [300, 900]], np.uint16)
    modality, voi = np.arange(1000, 0, -1), np.linspace(0, 2**bits - 1, 1001).astype(kind)
    tables = {
        "ModalityLUTSequence": [
            item(LUTDescriptor=[1000, 0, 16], LUTData=modality.astype("<u2").tobytes(), ModalityLUTType="US")
        ],
        "VOILUTSequence": [item(LUTDescriptor=[1001, 0, bits], LUTData=voi.tobytes() + b"\0" * (voi.nbytes % 2))],
    }
    for sequence in tables.values():
        for name in ("LUTDescriptor", "LUTData"):
            sequence[0][name].VR = "US" if name == "LUTDescriptor" else "OW"
    more = {} if syntax == "explicit" else {"syntax": syntax}
    path = save(tmp_path / "a.dcm", values, RescaleSlope=7, RescaleIntercept=7, **tables, **more)
    expected = voi[modality[values]].astype(float) / (2**bits - 1)
    assert np.allclose(band(path), expected, atol=1e-6)
    assert "window 1 of 1: a lookup table" in read_photo(path).notes


def test_values_beyond_a_table_take_its_ends_and_windows_come_before_tables(tmp_path):
    table = item(LUTDescriptor=[3, 10, 16], LUTData=[0, 32768, 65535])
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    values = np.array([[9, 10, 11, 12, 60000]], np.uint16)
    path = save(
        tmp_path / "a.dcm",
        values,
        VOILUTSequence=[table],
        WindowCenter=11,
        WindowWidth=2,
        VOILUTFunction="LINEAR_EXACT",
    )
    assert np.allclose(band(path), [[0, 0, 0.5, 1, 1]])
    assert np.allclose(band(path, window=2), [[0, 0, 32768 / 65535, 1, 1]])


def test_frames_have_their_own_windows_and_slopes(tmp_path):
    """An enhanced file: what holds for all frames stands in one group, what holds for one in its own."""
    own = [
        item(FrameVOILUTSequence=[item(WindowCenter=10.0 * i, WindowWidth=20, VOILUTFunction="LINEAR_EXACT")])
        for i in (1, 2)
    ]
    shared = [item(PixelValueTransformationSequence=[item(RescaleSlope=10, RescaleIntercept=-5)])]
    groups = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": own}
    path = save(tmp_path / "a.dcm", np.array([[[0, 1]], [[2, 3]]], np.uint16), **groups)
    assert np.allclose(band(path), [[0, 0.25]])
    assert np.allclose(band(path, frame=2), [[0.25, 0.75]])
    assert read_photo(path).notes[0] == "frame 1 of 2"
    assert read_photo(path, frame=2).notes[0] == "frame 2 of 2"


def test_a_constant_scan_is_black_and_not_a_division_by_zero(tmp_path):
    assert (band(save(tmp_path / "a.dcm", np.full((3, 3), 700, np.uint16))) == 0).all()
    assert (band(save(tmp_path / "b.dcm", np.full((1, 1), 7, np.uint8))) == 0).all()
    everything_padded = save(tmp_path / "c.dcm", np.full((2, 2), 7, np.uint16), PixelPaddingValue=7)
    assert (band(everything_padded) == 0).all()


def test_float_pixels_are_read_as_they_are(tmp_path):
    data = scan(np.zeros((2, 2), np.uint32))
    del data.PixelData
    data.FloatPixelData = np.array([[0, 0.5], [1, 2]], np.float32).tobytes()
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        del data[name]
    (tmp_path / "a.dcm").write_bytes(bytes_of(data))
    assert np.allclose(band(tmp_path / "a.dcm"), [[0, 0.25], [0.5, 1]])
    data.FloatPixelData = np.array([[0, np.nan], [1, 2]], np.float32).tobytes()
    (tmp_path / "a.dcm").write_bytes(bytes_of(data))
    assert "not finite" in refused(tmp_path / "a.dcm")


# -- colors, compression, old files ----------------------------------------------------------------------------------------


def test_colors_are_taken_as_they_are(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    rgb = read_photo(save(tmp_path / "a.dcm", values, modality="XC"))
    assert (np.asarray(as_rgb(rgb)) == values).all()
    assert "one's own" not in refused(tmp_path / "a.dcm", window=1)
    deep = read_photo(save(tmp_path / "b.dcm", values.astype(np.uint16) * 257))
    assert deep.bands[0].mode == "F"
    assert (np.asarray(as_rgb(deep)) == values).all()
    gray = [to_input(photo, (4, 6), 1.0, "bilinear", channels=1)[0] for photo in (rgb, deep)]
    expected = values.astype(float) @ [0.299, 0.587, 0.114] / 255
    assert all(np.abs(one[0] - expected).max() < 1 / 255 for one in gray)


def test_a_palette_and_ybr_become_rgb(tmp_path):
    lut = {}
    for color, entries in {"Red": [0, 255], "Green": [128, 0], "Blue": [7, 9]}.items():
        lut[f"{color}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        lut[f"{color}PaletteColorLookupTableData"] = bytes(entries)
    data = scan(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **lut)
    for name in lut:
        data[name].VR = "US" if "Descriptor" in name else "OW"
    (tmp_path / "p.dcm").write_bytes(bytes_of(data))
    assert np.asarray(as_rgb(read_photo(tmp_path / "p.dcm"))).tolist() == [[[0, 128, 7], [255, 0, 9]]]
    ybr = np.array([[[76, 85, 255], [128, 128, 128]]], np.uint8)  # red, gray
    path = save(tmp_path / "y.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    assert np.abs(np.asarray(as_rgb(read_photo(path))).astype(int) - [[[254, 0, 0], [128, 128, 128]]]).max() <= 1


def compressed(path, syntax, out):
    """A file in another transfer syntax, by the name that gdcm gives it."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(out))
    assert writer.Write()
    return out


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLSLossless", "JPEGLosslessProcess14_1"])
@pytest.mark.parametrize("bits", [12, 16])
def test_compression_without_loss_gives_the_same_pixels(tmp_path, syntax, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (20, 30), np.uint16)
    plain = save(tmp_path / "a.dcm", values, BitsStored=bits, HighBit=bits - 1)
    packed = compressed(plain, syntax, tmp_path / "b.dcm")
    assert packed.read_bytes() != plain.read_bytes()
    assert (band(packed) == band(plain)).all()


def test_lossy_jpeg_is_read_and_what_is_lost_is_said(tmp_path):
    buffer = BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(buffer, "jpeg", quality=95)
    data = scan(np.zeros((32, 32), np.uint8), syntax=JPEGBaseline8Bit, LossyImageCompression="01")
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].is_undefined_length = True
    (tmp_path / "a.dcm").write_bytes(bytes_of(data))
    assert np.abs(band(tmp_path / "a.dcm") - np.asarray(Image.open(buffer)) / 255).max() < 0.02
    assert "was compressed with loss" in read_photo(tmp_path / "a.dcm").notes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_of_the_tags(tmp_path, syntax):
    path = save(tmp_path / "a.dcm", RAMP, syntax=syntax, WindowCenter=40, WindowWidth=400)
    assert np.allclose(band(path), linear(RAMP, 40, 400), atol=1e-7)


def test_an_old_file_without_a_header_is_known_by_its_suffix(tmp_path):
    data = scan(RAMP, syntax=ImplicitVRLittleEndian)
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=False)
    whole = buffer.getvalue()
    (tmp_path / "old.DCM").write_bytes(whole[whole.index(b"\x08\x00\x16\x00") :])  # from SOP Class UID on
    assert np.allclose(band(tmp_path / "old.DCM"), (RAMP + 1000) / 1900.0, atol=1e-6)
    assert any("taken as Implicit VR Little Endian" in note for note in read_photo(tmp_path / "old.DCM").notes)


def test_a_file_is_known_by_its_content_and_folders_find_it_by_its_suffix(tmp_path):
    save(tmp_path / "IM000001", RAMP)
    assert read_photo(tmp_path / "IM000001").modality == "CT"
    save(tmp_path / "b.dcm", RAMP)
    save(tmp_path / "c.DICOM", RAMP)
    assert [path.name for path in folder_images(tmp_path)] == ["b.dcm", "c.DICOM"]


# -- what the reader of a picture has to know ------------------------------------------------------------------------------


def test_pixels_that_are_not_square_are_said_and_not_resampled(tmp_path):
    photo = read_photo(save(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.5, 0.7]))
    assert photo.size == (4, 5)
    assert "pixels are 0.5 mm high and 0.7 mm wide: not square, and not resampled" in photo.notes
    assert "2 high and 1 wide" in str(read_photo(save(tmp_path / "b.dcm", RAMP, PixelAspectRatio=[2, 1])).notes)
    assert "square" not in str(read_photo(save(tmp_path / "c.dcm", RAMP, PixelSpacing=[0.5, 0.5])).notes)


def test_a_spacing_that_cannot_be_meant_does_not_cost_the_picture(tmp_path):
    photo = read_photo(save(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.5, 0.5, 0.5]))
    assert "tag (0028,0030) Pixel Spacing holds 3 value(s); expected 2 finite numbers." in photo.notes
    content = bytes_of(scan(RAMP, PixelSpacing="777\\777"))
    (tmp_path / "b.dcm").write_bytes(content.replace(b"777\\777 ", b"Ottilie "))
    assert "Pixel Spacing cannot be read (ValueError)." in str(read_photo(tmp_path / "b.dcm").notes)
    assert "Ottilie" not in str(read_photo(tmp_path / "b.dcm").notes)


def test_text_burned_into_the_picture_is_said(tmp_path):
    assert "may name a patient" in str(read_photo(save(tmp_path / "a.dcm", RAMP, BurnedInAnnotation="YES")).notes)


@pytest.mark.filterwarnings("ignore:Invalid value")  # pydicom writes it all the same
@pytest.mark.parametrize("modality", [None, "", "Zachariasson", "a b"])
def test_a_modality_that_is_none_is_dicom(tmp_path, modality):
    data = scan(RAMP)
    data.Modality = modality
    (tmp_path / "a.dcm").write_bytes(bytes_of(data))
    assert read_photo(tmp_path / "a.dcm").modality == "DICOM"


# -- what cannot be read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Rows": None}, "without the tag (0028,0010) Rows"),
        ({"BitsAllocated": None}, "without the tag (0028,0100) Bits Allocated"),
        ({"PhotometricInterpretation": None}, "(0028,0004) Photometric Interpretation"),
        ({"PhotometricInterpretation": "Zachariasson^Ottilie"}, "(0028,0004) Photometric Interpretation is none of"),
        ({"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3}, "is HSV with 3 sample(s)"),
        ({"SamplesPerPixel": 2}, "with 2 sample(s) a pixel"),
        ({"PixelData": None}, "without pixels, tag (7FE0,0010) Pixel Data: it is of the class CT Image Storage"),
        ({"PixelData": b""}, "0 bytes of pixels; its tags say 40"),
        ({"Rows": 0}, "5 x 0 pixels"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels; from 1 to"),
        ({"NumberOfFrames": 3}, "its tags say 120 (3 frame(s) of 5 x 4): truncated, or a wrong tag (0028,0008)"),
        ({"NumberOfFrames": -1}, "(0028,0008) Number of Frames is -1"),
        ({"RescaleSlope": float("nan"), "RescaleIntercept": 0}, "(0028,1053) Rescale Slope is nan"),
        ({"BitsStored": 17}, "do not fit their tags"),
        ({"WindowCenter": 40, "WindowWidth": 0}, "(0028,1051) Window Width; the width of LINEAR is at least 1"),
        ({"WindowCenter": 40, "WindowWidth": -5}, "--window CENTER,WIDTH"),
        ({"WindowCenter": [40, 50], "WindowWidth": 400}, "2 of tag (0028,1050) Window Center, 1 of"),
        ({"WindowCenter": 40, "WindowWidth": 40, "VOILUTFunction": "CUBIC"}, "(0028,1056) VOI LUT Function is none of"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "(0028,1053) Rescale Slope is 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")  # pydicom writes what is asked for, and says so
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_file_whose_tags_cannot_be_right(tmp_path, tags, said):
    assert said in refused(save(tmp_path / "a.dcm", RAMP, **tags))


@pytest.mark.parametrize("keyword", ["RescaleSlope", "WindowWidth", "NumberOfFrames"])
def test_a_name_in_the_wrong_tag_is_not_repeated(tmp_path, keyword):
    more = {"WindowCenter": 1} if keyword == "WindowWidth" else {}
    content = bytes_of(scan(RAMP, **{keyword: "777"}, **more))
    wrong = content.replace(b"777 ", b"Otti")
    assert wrong != content
    (tmp_path / "a.dcm").write_bytes(wrong)
    assert "Otti" not in refused(tmp_path / "a.dcm")


def test_truncated_files_and_files_that_are_none(tmp_path):
    whole = bytes_of(scan(RAMP))
    for length in (20, 140, 200, 400, len(whole) - 60, len(whole) - 2):
        (tmp_path / "a.dcm").write_bytes(whole[:length])
        refused(tmp_path / "a.dcm")
    for content in (b"no scan at all", b"\x89PNG\r\n\x1a\n" + bytes(300), np.random.default_rng(0).bytes(5000)):
        (tmp_path / "b.dcm").write_bytes(content)
        refused(tmp_path / "b.dcm")


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        (JPEGExtended12Bit, "compressed as JPEG Extended (Process 2 and 4) (1.2.840.10008.1.2.4.51)"),
        (RLELossless, "compressed as RLE Lossless"),
        (UID("1.2.840.10008.1.2.4.100"), "(0002,0010) Transfer Syntax UID is MPEG2"),
        (
            UID("1.2.3.4.5.6"),
            "(0002,0010) Transfer Syntax UID is the transfer syntax 1.2.3.4.5.6, which no decoder reads",
        ),
    ],
)
def test_pixels_that_no_decoder_reads_are_named_by_their_compression(tmp_path, syntax, said):
    data = scan(RAMP)
    data.PixelData = encapsulate([b"nothing that decodes"])
    data["PixelData"].is_undefined_length = True
    content = bytes_of(data)
    old, new = data.file_meta.TransferSyntaxUID.encode(), syntax.encode()
    width = len(old) + len(old) % 2
    new = new + b"\0" * (len(new) % 2)
    place = content.index(old)
    patched = content[: place - 2] + len(new).to_bytes(2, "little") + new + content[place + width :]
    length = content.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
    size = int.from_bytes(content[length : length + 4], "little") + len(new) - width
    (tmp_path / "a.dcm").write_bytes(patched[:length] + size.to_bytes(4, "little") + patched[length + 4 :])
    assert said in refused(tmp_path / "a.dcm")


def test_a_decoder_that_is_not_installed_is_named_with_its_install_line(tmp_path, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    path = compressed(save(tmp_path / "a.dcm", RAMP), "JPEGLSLossless", tmp_path / "b.dcm")
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    assert "compressed as JPEG-LS Lossless Image Compression (1.2.840.10008.1.2.4.80)" in refused(path)
    assert "pip install 'seewhy[medical]'" in refused(path)


def test_without_pydicom_the_install_line_is_said(tmp_path, monkeypatch):
    path = save(tmp_path / "a.dcm", RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"seewhy\[medical\]"):
        read_photo(path)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"frame": 2}, "frame 2 of 1"),
        ({"frame": 0}, "frame 0 of 1"),
        ({"frame": True}, "frame True of 1"),
        ({"window": 2}, "window 2 of 1"),
        ({"window": 0}, "window 0 of 1"),
        ({"window": (40, 0)}, "width of LINEAR is at least 1"),
        ({"window": (float("nan"), 10)}, "center nan"),
    ],
)
def test_a_frame_or_a_window_that_there_is_not(tmp_path, how, said):
    assert said in refused(save(tmp_path / "a.dcm", RAMP, WindowCenter=40, WindowWidth=400), **how)


def test_what_is_no_window_is_a_wrong_call(tmp_path):
    path = save(tmp_path / "a.dcm", RAMP)
    with pytest.raises(UsageError, match="or \\(center, width\\)"):
        read_photo(path, window=(1, 2, 3))
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert "only DICOM files have windows" in refused(tmp_path / "a.png", window=1)


# -- deep pictures that are no DICOM ---------------------------------------------------------------------------------------


def png16(values):
    """A 16-bit PNG, which Pillow does not write in colors."""
    height, width, channels = values.shape

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = size + bytes([16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def test_a_gray_png_of_16_bits_is_exact_and_one_in_colors_says_what_is_lost(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    (tmp_path / "gray.png").write_bytes(png16(values[..., :1]))
    (tmp_path / "color.png").write_bytes(png16(values))
    assert np.allclose(band(tmp_path / "gray.png"), values[..., 0] / 65535, atol=1e-7)
    color = read_photo(tmp_path / "color.png")
    assert "16 bits a color, of which the upper 8 are read" in color.notes
    assert (np.asarray(as_rgb(color)) == values >> 8).all()
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").notes == ()


def test_a_page_of_many_is_asked_for(tmp_path):
    pages = [Image.new("L", (4, 4), shade) for shade in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert band(tmp_path / "a.tif", frame=3)[0, 0] == 30
    assert read_photo(tmp_path / "a.tif", frame=3).notes == ("number 3 of 3 frames or pages",)
    assert "frame 4 of 3" in refused(tmp_path / "a.tif", frame=4)


def test_who_reads_no_scan_does_not_wait_for_pydicom():
    for path in Path(sw.__file__).parent.rglob("*.py"):
        assert not re.search(r"^(import|from) pydicom", path.read_text("utf-8"), re.MULTILINE), path


def test_nothing_that_pydicom_quotes_is_logged_or_warned_of_and_its_logger_is_as_it_was(tmp_path, caplog):
    log = logging.getLogger("pydicom")
    before = (log.level, list(log.handlers), log.propagate)
    with quiet():
        scan(RAMP).Modality = "Zachariasson^Ottilie, an invalid value"
    assert not caplog.text
    read_photo(save(tmp_path / "a.dcm", RAMP))
    assert (log.level, list(log.handlers), log.propagate, log.filters) == (*before, [])
