"""The pipeline as an SVG file."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import msgspec
import pytest

from sage_nb.jobs.layout import places
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
    places = [(box.place.x, box.place.y) for box in picture.boxes]
    assert len(set(places)) == len(places)
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= picture.width - 148
        assert 0 <= y <= picture.height - 62
        assert all(abs(x - a) >= 148 or abs(y - b) >= 62 for a, b in places[:i])


def test_sources_and_sinks_differ_in_shape() -> None:
    """What begins and what ends is seen without colour and without reading."""
    outlines = {box.place.kind: box.place.outline for box in layout(SAMPLES["running"]).boxes}
    assert len({outlines["source"], outlines["map"], outlines["sink"]}) == 3


def test_the_failed_operator_is_marked_and_errors_are_counted() -> None:
    """The operator at which the job failed has a border of its own and says its errors in words."""
    boxes = {box.place.name: box for box in layout(SAMPLES["failed"]).boxes}
    assert [name for name, box in boxes.items() if box.failed] == ["parse"]
    assert boxes["parse"].badge == "1 error"


def _job(*operators: tuple[str, tuple[int, ...]], **more: dict[int, object]) -> JobSnapshot:
    """Operators as (kind, inputs), where a job would place them; `more` has further fields, by operator."""
    at = places([(id, ups, kind) for id, (kind, ups) in enumerate(operators)])
    views = tuple(
        OperatorView(
            id=id,
            name=f"op {id}",
            kind=kind,
            col=at[id][0],
            row=at[id][1],
            upstream=ups,
            **{field: values[id] for field, values in more.items() if id in values},  # type: ignore[arg-type]
        )
        for id, (kind, ups) in enumerate(operators)
    )
    return JobSnapshot(uuid="u", name="n", status="running", operators=views)


def test_an_edge_over_columns_passes_between_the_rows() -> None:
    """It does not run behind the boxes that it skips."""
    near, far = layout(_job(("source", ()), ("map", (0,)), ("map", (1, 0)))).edges[1:]
    assert "L" not in near.place.path
    assert "196,83L344,83" in far.place.path  # 12 + 62 + 9: the middle of the gap below the first row


def test_edges_between_the_same_rows_have_tracks_of_their_own() -> None:
    """Two edges with neither end in common do not lie on each other, and the rows make room for them."""
    chain = [("source", ()), *(("map", (n,)) for n in range(5))]
    one = layout(_job(*chain, ("map", (5, 0))))
    two = layout(_job(*chain[:4], ("map", (3, 0)), ("map", (4, 1)), ("map", (5,))))
    assert two.height == one.height + 6
    shared = layout(_job(*chain[:4], ("map", (3, 0)), ("map", (4, 0)), ("map", (5,))))
    assert shared.height == one.height


def test_an_edge_takes_a_row_that_is_free() -> None:
    """From a short branch to a merge far away it runs straight along its own row."""
    edge = layout(_job(("source", ()), ("source", ()), ("map", (0,)), ("map", (2,)), ("map", (3, 1)))).edges[-1]
    assert edge.place.path.startswith("M160,123L528,123C")


def test_what_closes_a_loop_is_dashed_and_leads_back_below_the_boxes() -> None:
    """It is marked as such, passes below both its ends, and is drawn with dashes; its arrow head is not."""
    job = _job(("source", ()), ("future", (3,)), ("map", (0, 1)), ("map", (2,)))
    picture = layout(job)
    (back,) = [edge for edge in picture.edges if edge.place.back]
    lowest = max(y for _, y in _points(back.place.path))
    assert lowest > max(box.place.y + 62 for box in picture.boxes if box.place.id in (1, 3))
    assert lowest < picture.height
    assert pipeline_svg(job).count("stroke-dasharray") == 1


def test_what_is_given_to_a_future_from_the_side_is_dashed_as_well() -> None:
    """An edge into the head of a loop looks the same wherever it comes from."""
    job = _job(("source", ()), ("future", (0,)), ("map", (2,)), ("source", ()), ("map", (3,)), ("map", (4, 1)))
    assert [edge.place.key for edge in layout(job).edges if edge.place.back] == ["0-1", "2-2"]


def _points(path: str) -> list[tuple[float, float]]:
    """Points along a path of `M`, `L` and `C`, one for each two pixels or so."""
    at, points = (0.0, 0.0), []
    for command, numbers in re.findall(r"([MLC])([^MLC]*)", path):
        given = [float(number) for number in re.split("[ ,]", numbers)]
        a, *rest = [at, *zip(given[::2], given[1::2], strict=True)]
        if command == "M":
            at = rest[0]
            continue
        b, c, d = rest if command == "C" else (a, rest[0], rest[0])
        for n in range(201):
            t = n / 200
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            points.append(tuple(sum(w * p[i] for w, p in zip(weights, (a, b, c, d), strict=True)) for i in (0, 1)))
        at = rest[-1]
    return points  # type: ignore[return-value]


def _random_job(seed: int) -> JobSnapshot:
    rng = random.Random(seed)
    operators: list[tuple[str, tuple[int, ...]]] = [("source", ())]
    size = rng.randint(2, 14)
    for id in range(1, size):
        kind = rng.choice(["source", "future", "map", "map", "map", "map"])
        ups = {"source": (), "future": (rng.randrange(size),)}
        operators.append((kind, ups.get(kind, tuple(rng.randrange(id) for _ in range(rng.randint(1, 3))))))
    return _job(*operators)


@pytest.mark.parametrize("seed", range(150))
def test_no_edge_runs_through_a_box(seed: int) -> None:
    """Random graphs with merges and loops: an edge touches no box but at its two ends, and stays in the picture."""
    picture = layout(_random_job(seed))
    for edge in picture.edges:
        for x, y in _points(edge.place.path):
            assert 0 <= x <= picture.width
            assert 0 <= y <= picture.height
            for place in (box.place for box in picture.boxes):
                inside = place.x + 1 < x < place.x + 147 and place.y + 1 < y < place.y + 61
                assert not inside, (edge.place.key, place.id)


def test_amber_is_the_way_to_what_holds_the_others_back() -> None:
    """Of two consumers, the one before which the items pile up; nothing is amber where nobody waits."""
    graph: tuple[tuple[str, tuple[int, ...]], ...] = (("source", ()), ("map", (0,)), ("sink", (0,)))
    held = _job(*graph, blocked={0: 0.8}, queued={1: 1_024, 2: 3})
    assert [edge.slow for edge in layout(held).edges] == [True, False]
    assert [box.slow for box in layout(held).boxes] == [False, True, False]
    assert [box.waiting for box in layout(held).boxes] == ["", "1 k waiting", "3 waiting"]
    free = _job(*graph, blocked={0: 0.05}, queued={1: 1_024, 2: 3})
    assert not any(edge.slow for edge in layout(free).edges)
    empty = _job(*graph, blocked={0: 0.8})
    assert not any(edge.slow for edge in layout(empty).edges)
    over = layout(msgspec.structs.replace(held, status="completed"))
    assert not any(edge.slow for edge in over.edges)
    assert not any(box.waiting or box.slow or box.blocked for box in over.boxes)


def test_busy_and_blocked_share_one_bar() -> None:
    """The two parts follow each other and never leave the box, whatever was measured."""
    for busy, blocked in ((0.25, 0.5), (0.9, 0.9), (None, 1.0), (1.0, None)):
        (box,) = layout(_job(("map", ()), busy={0: busy}, blocked={0: blocked})).boxes
        assert (box.busy or 0) + box.blocked <= box.place.right - box.place.left
        assert bool(box.blocked) == (blocked is not None)


def test_instances_and_processes_are_marked() -> None:
    """`×4` and a chip, in the line of the name, which is cut where it needs their room."""
    job = _job(("map", ()), ("map", ()), ("map", ()), parallelism={1: 4, 2: 16}, executor={2: "process"})
    one, many, process = (box.place for box in layout(job).boxes)
    assert [one.many, many.many, process.many] == ["", "×4", "×16"]
    assert [one.process, many.process] == [None, None]
    assert process.process is not None
    assert process.process + 10 + 7 * 3 <= process.right
    long = layout(SAMPLES["back_pressure"]).boxes[2].place
    assert long.name == "shrink to 2…"


def test_two_badges_have_room_beside_each_other() -> None:
    """Where both are long, the number of waiting items stands alone."""

    def said(queued: int, errors: int) -> str:
        return layout(_job(("map", ()), queued={0: queued}, errors={0: errors})).boxes[0].waiting

    assert [said(96, 0), said(96, 1), said(1_024, 4)] == ["96 waiting", "96 waiting", "1 k waiting"]
    assert said(123_456, 123_456) == "123 k"


def test_long_names_are_cut_with_an_ellipsis() -> None:
    """A name never leaves its box."""
    names = [box.place.name for box in layout(SAMPLES["long_names"]).boxes]
    assert all(name.endswith("…") and len(name) < 30 for name in names)


def test_the_alternative_text_names_every_operator() -> None:
    """Who does not see the picture reads the same."""
    assert "shrink to 256 pixels (map × 4 in processes, 8,192 → 8,188, 1,024 waiting)" in pipeline_alt(
        SAMPLES["back_pressure"]
    )
    assert pipeline_alt(SAMPLES["stopped"]) == (
        "Pipeline of 3 operators: sensors (source, 2,664,000), is alarm (filter, 2.7 M → 311), print (print, 311)"
    )


def test_names_are_text_in_the_picture() -> None:
    """Markup and control characters in a name are shown, not obeyed."""
    root = ElementTree.fromstring(pipeline_svg(SAMPLES["hostile"]))
    title = root.findtext("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert INJECTION in title
