"""Pascal VOC folders made on the spot, for what only that format says of objects."""

from pathlib import Path

from sniper.data.readers.voc import read_voc
from sniper.data.table import AnnotationTable

Box = tuple[int, int, int, int]


def voc_table(folder: Path, *objects: tuple[Box, str], size_wh: tuple[int, int] = (200, 200)) -> AnnotationTable:
    """One image with objects of class ``thing``: half-open boxes in px, and marks such as ``difficult`` (or none)."""
    (folder / "Annotations").mkdir(parents=True)
    text = "<annotation><filename>a.jpg</filename>"
    text += "<size><width>{}</width><height>{}</height></size>".format(*size_wh)
    for (x1, y1, x2, y2), marks in objects:
        flags = "".join(f"<{mark}>1</{mark}>" for mark in marks.split())
        corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        text += f"<object><name>thing</name>{flags}<bndbox>{corners}</bndbox></object>"
    (folder / "Annotations" / "a.xml").write_text(text + "</annotation>")
    return read_voc(folder).check()
