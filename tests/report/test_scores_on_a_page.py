"""Tables and curves of every protocol on the page of a run."""

from pathlib import Path

from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.protocol import ScoreTable
from sniper.evaluation.protocols import protocols_of
from sniper.report.html import Report
from sniper.report.run_page import score_section
from tables_by_hand import Thing, found_in, table_of
from wider_cases import Faces, write_mat_files

BOX, OTHER = (10, 10, 50, 60), (100, 100, 160, 160)


def test_every_protocol_has_its_tables_and_curves(tmp_path: Path) -> None:
    image = Faces("0--Parade/a", [(10, 10, 40, 50)], (), (1,), (1,), (1,))
    truth = write_mat_files(tmp_path / "truth", [image])
    table = table_of([[Thing(BOX), Thing(OTHER, 1)]], names=("face", "cat"), files=["0--Parade/a.jpg"])
    config = CocoEvalConfig(protocols=("voc", "openimages", "wider", "coco"), wider_truth=str(truth))
    found = found_in(table, [(0, BOX, 0.9, 0), (0, OTHER, 0.8, 1)])
    scores = [protocol(table, found) for protocol in protocols_of(config)]
    report = score_section(Report("run"), scores, ScoreTable("Best F1", ["class"], [["face"]]))
    page = report.write(tmp_path, embed=True).read_text()
    for title in ("Pascal VOC, IoU 0.5: 1 images", "OpenImages, IoU 0.5", "WIDER FACE, IoU 0.5", "COCO: 1 images"):
        assert title in page
    assert page.count("<svg") == 2 + 2 + 1 + 2  # all classes, and each class; faces are one class
    assert all(name in page for name in ("easy", "medium", "hard", "challenge, IoU 0.50", "AP, 11 points"))
