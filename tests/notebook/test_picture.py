"""The pipeline as an SVG file."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from sage_nb.notebook.picture import layout, pipeline_alt, pipeline_svg
from tests.notebook.samples import INJECTION, SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
def test_the_picture_is_well_formed_and_says_each_counter(name: str) -> None:
    """Every sample is valid XML, whose texts hold each operator's counter, and no element but those drawn."""
    root = ElementTree.fromstring(pipeline_svg(SAMPLES[name]))
    tags = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()}
    assert tags <= {"svg", "title", "path", "g", "text", "rect"}
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for box in layout(SAMPLES[name]).boxes:
        assert box.flow in texts


@pytest.mark.parametrize("name", SAMPLES)
def test_boxes_do_not_overlap_and_lie_inside(name: str) -> None:
    """Two operators at different places never share a pixel, and none is cut off."""
    picture = layout(SAMPLES[name])
    places = [(box.x, box.y) for box in picture.boxes]
    assert len(set(places)) == len(places)
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= picture.width - 148
        assert 0 <= y <= picture.height - 62
        assert all(abs(x - a) >= 148 or abs(y - b) >= 62 for a, b in places[:i])


def test_sources_and_sinks_differ_in_shape() -> None:
    """What begins and what ends is seen without colour and without reading."""
    outlines = {box.kind: box.outline for box in layout(SAMPLES["running"]).boxes}
    assert len({outlines["source"], outlines["map"], outlines["sink"]}) == 3


def test_the_failed_operator_is_marked_and_errors_are_counted() -> None:
    """The operator at which the job failed has a border of its own and says its errors in words."""
    boxes = {box.name: box for box in layout(SAMPLES["failed"]).boxes}
    assert [name for name, box in boxes.items() if box.failed] == ["parse"]
    assert boxes["parse"].badge == "1 error"


def test_an_edge_over_columns_passes_between_the_rows() -> None:
    """It does not run behind the boxes that it skips."""
    ops = tuple(OperatorView(id=i, name="x", kind="map", col=i, row=0) for i in range(2))
    last = OperatorView(id=2, name="x", kind="map", col=2, row=0, upstream=(1, 0))
    near, far = layout(JobSnapshot(uuid="u", name="n", status="running", operators=(*ops, last))).edges
    assert "L" not in near.path.split("M")[1]
    assert "196,83L344,83" in far.path  # 12 + 62 + 9: the middle of the gap below the first row


def test_long_names_are_cut_with_an_ellipsis() -> None:
    """A name never leaves its box."""
    names = [box.name for box in layout(SAMPLES["long_names"]).boxes]
    assert all(name.endswith("…") and len(name) < 30 for name in names)


def test_the_alternative_text_names_every_operator() -> None:
    """Who does not see the picture reads the same."""
    assert pipeline_alt(SAMPLES["stopped"]) == (
        "Pipeline of 3 operators: sensors (source, 2,664,000), is alarm (filter, 2.7 M → 311), print (print, 311)"
    )


def test_names_are_text_in_the_picture() -> None:
    """Markup and control characters in a name are shown, not obeyed."""
    root = ElementTree.fromstring(pipeline_svg(SAMPLES["hostile"]))
    title = root.findtext("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert INJECTION in title
