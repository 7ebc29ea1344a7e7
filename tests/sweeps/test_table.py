"""The table: metrics by name from what runs leave, ranks, states, and three forms that agree."""

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from making import begun, leave_evaluation, leave_metrics

from fae_jax.sweeps.axes import grid
from fae_jax.sweeps.directory import SweepDirectory, conclude
from fae_jax.sweeps.plots import Scale, all_curves, over_field, write_plots
from fae_jax.sweeps.table import curve, known_metrics, make_rows, write_table

SCORE = "generation.sets.guided.frechet.samples_to_heldout"
METRICS = ("features.loss", SCORE)


@pytest.fixture
def directory(tmp_path: Path) -> SweepDirectory:
    points = grid({"features.beta": (1e-4, 1e-3, 1e-2), "features.steps": (2, 3)})
    made = begun(tmp_path / "s", points=points, metric=METRICS[0], also=(SCORE,), tasks=("generation",))
    for number, loss in enumerate((3.0, 2.0, 2.5, 1.0)):
        leave_metrics(made, number, "features", loss=[9.0, loss], skipped=[0, 0])
        leave_evaluation(
            made, number, "generation", {"sets": {"guided": {"frechet": {"samples_to_heldout": loss / 7}}}}
        )
        conclude(made.points[number].workdir, "done")
    leave_metrics(made, 4, "features", loss=[9.0, None], skipped=[0, 1])
    conclude(made.points[4].workdir, "failed", reason="it burst")
    return made


def test_metrics_go_by_the_names_of_files_and_keys(directory: SweepDirectory):
    known = known_metrics(directory.points[0].workdir)
    assert known == {"features.loss": 3.0, "features.skipped": 0, SCORE: 3 / 7}
    assert curve(directory.points[4].workdir, "features.loss") == [(1, 9.0)]
    assert curve(directory.points[0].workdir, SCORE) == []


def test_rows_have_places_and_states(directory: SweepDirectory):
    rows = make_rows(directory, METRICS)
    assert [row.place for row in rows] == [4, 2, 3, 1, None, None]
    assert [row.state for row in rows] == ["done"] * 4 + ["failed", "not begun"]
    leave_metrics(directory, 5, "pixels", loss=[1.0])
    conclude(directory.points[0].workdir, "behind", step=2)
    states = [row.state for row in make_rows(directory, METRICS)]
    assert states[0] == "behind at step 2" and states[5] == "pixels 1"


def test_text_csv_and_json_say_the_same(directory: SweepDirectory):
    text = write_table(directory, make_rows(directory, METRICS), METRICS)
    lines = text.splitlines()
    assert lines[0].split() == ["place", "point", "beta", "steps", *METRICS, "state"]
    assert lines[1].split() == ["1", "3", "0.001", "3", "1", "0.142857", "done"]
    with open(directory.root / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[3]["features.beta"] == "0.001" and float(rows[3][SCORE]) == 1 / 7 and rows[4]["features.loss"] == ""
    table = json.loads((directory.root / "table.json").read_text())
    assert table["best"] == directory.points[3].name and table["points"][3]["metrics"]["features.loss"] == 1.0
    assert table["shared_stages"] == ["encoder", "pixels"]


def test_a_metric_that_no_point_has_names_the_nearest(directory: SweepDirectory):
    with pytest.raises(ValueError, match="metric 'features.los' is in no point of .*; did you mean 'features.loss'?"):
        make_rows(directory, ("features.los",))


def test_plots_stand_alone_and_have_every_point(directory: SweepDirectory):
    rows = make_rows(directory, METRICS)
    names = write_plots(directory, rows, METRICS, "text < here")
    assert names == sorted(path.stem for path in (directory.root / "plots").iterdir()) and len(names) == 5
    for path in (directory.root / "plots").glob("*.svg"):
        drawing = ElementTree.parse(path).getroot()
        dots = [node for node in drawing.iter() if node.tag.endswith("circle")]
        assert len(dots) == (0 if "over_steps" in path.stem else 4)
    page = (directory.root / "index.html").read_text()
    assert page.count("<svg") == 5 and "text &lt; here" in page


def test_the_best_dot_is_the_large_one_and_lies_lowest(directory: SweepDirectory):
    drawing = ElementTree.fromstring(
        over_field("features.beta", METRICS[0], make_rows(directory, METRICS), lower=True).svg()
    )
    dots = [node for node in drawing.iter() if node.tag.endswith("circle")]
    large = max(dots, key=lambda dot: float(dot.get("r")))
    assert float(large.get("cy")) == max(float(dot.get("cy")) for dot in dots)
    assert directory.points[3].name in large[0].text
    assert len({dot.get("cx") for dot in dots}) == 2  # two betas have results


def test_each_metric_has_its_own_best(tmp_path: Path):
    metrics = ("features.loss", "probe.x.accuracy", "features.norm")
    made = begun(
        tmp_path / "s", points=grid({"features.beta": (1e-4, 1e-3, 1e-2)}), metric=metrics[0], also=metrics[1:]
    )
    for number, value in enumerate((0.5, 0.9, 0.7)):
        leave_metrics(made, number, "features", loss=[value], norm=[value])
        leave_evaluation(made, number, "probe", {"x": {"accuracy": value}})
    rows = make_rows(made, metrics)
    for metric, best in zip(metrics, (0, 1, None), strict=True):
        plot = over_field("features.beta", metric, rows, lower=made.sweep.prefers_lower(metric))
        assert [radius for *_, radius, _ in plot.dots] == [6 if number == best else 3.5 for number in range(3)]
    assert [row.place for row in make_rows(made, metrics[1:])] == [3, 1, 2]
    assert [row.place for row in make_rows(made, metrics[2:])] == [None] * 3
    write_plots(made, rows, metrics, write_table(made, rows, metrics))
    drawing = (made.root / "plots" / "probe.x.accuracy_over_features.beta.svg").read_text()
    assert re.findall(r'r="6"[^>]*><title>(\S+): ', drawing) == [made.points[1].name]
    table = json.loads((made.root / "table.json").read_text())
    assert table["better"] == {metrics[0]: "lower", metrics[1]: "higher", metrics[2]: ""}


def test_an_axis_is_logarithmic_where_values_span_far_and_words_lie_in_order():
    scale = Scale.over([1e-4, 1e-1])
    assert scale.logarithmic and scale.place(1e-4) < 0.1 and abs(scale.place(10**-2.5) - 0.5) < 1e-6
    assert not Scale.over([1.0, 2.0]).logarithmic and Scale.over([5.0, 5.0]).place(5.0) == 0.5
    named = Scale.named(["rms", "layer"])
    assert [named.place(value) for value, _ in named.ticks()] == [0.25, 0.75]


def test_no_plot_where_there_is_nothing_to_see(directory: SweepDirectory):
    rows = make_rows(directory, METRICS)
    assert over_field("features.beta", METRICS[0], rows[4:], lower=True) is None
    assert over_field("features.beta", METRICS[0], rows[:2], lower=True) is None
    assert all_curves(SCORE, directory) is None
