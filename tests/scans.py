"""DICOM files that the tests write themselves, with a patient that never was."""

from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = {
    "PatientName": "Zachariasson^Ottilie",
    "PatientID": "PID-77125-X",
    "PatientBirthDate": "19310417",
    "InstitutionName": "Hospital of the Seven Lakes",
    "ReferringPhysicianName": "Quillfeather^Ada",
    "AccessionNumber": "ACC5550173",
    "StudyDescription": "Follow-up after lobectomy",
    "PatientComments": "asked for by the daughter",
}


def scan(pixels, modality="CT", syntax=ExplicitVRLittleEndian, **tags):
    """A data set of these stored values, (H, W), (frames, H, W) or (H, W, 3), and whatever else is given by keyword."""
    values = np.asarray(pixels)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=["a"])
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality = modality
    for name, value in PATIENT.items():
        setattr(data, name, value)
    color = values.ndim == 3 and values.shape[2] == 3
    data.SamplesPerPixel = 3 if color else 1
    data.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        data.PlanarConfiguration = 0
    elif values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.Rows, data.Columns = values.shape[:2] if color else values.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * values.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    data["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
    for name, value in tags.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    return data


def bytes_of(data):
    """The file's bytes."""
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def save(path, pixels, **tags):
    """Write a scan; its path."""
    path.write_bytes(bytes_of(scan(pixels, **tags)))
    return path


def slices(folder, count=5, step=2.5, first=0, size=(8, 10), **tags):
    """A series, its files named against its order; slice i holds i everywhere but one pixel that tells rows from columns."""
    folder.mkdir(exist_ok=True)
    for i in range(first, first + count):
        pixels = np.full(size, i, np.int16)
        pixels[1, 2] = 100 + i
        place = {
            "ImagePositionPatient": [1.0, 2.0, i * step],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.5, 0.5],
            "InstanceNumber": 50 - i,
            "SeriesInstanceUID": "1.2.3.4",
        }
        save(folder / f"{90 - i}.dcm", pixels, **{**place, **tags})
    return folder


def item(**tags):
    """One item of a sequence."""
    found = Dataset()
    for name, value in tags.items():
        setattr(found, name, value)
    return found
