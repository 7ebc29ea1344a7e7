"""What docs/scaling.md says, from the figures it is made of (docs/scaling.json, by `benchmarks/scaling.py`)."""

import json
import sys

import pytest
from running import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from scaling import BEGIN, END, GROWTH, MAIN, SLICES, plot, sent, table

from fae_jax.config import load_config
from fae_jax.parallel.topologies import parse_topology

ROWS = json.loads((ROOT / "docs" / "scaling.json").read_text())


@pytest.mark.parametrize("stage", ["features", "pixels", "generator"])
def test_the_papers_stages_fit_four_slices_at_the_papers_batch(stage: str):
    rows = {row["slice"]: row for row in ROWS if (row["config"], row["stage"], row["quick"]) == (MAIN, stage, False)}
    assert set(rows) >= set(SLICES)
    for name, row in rows.items():
        assert row["fits"] and row["state"] < row["peak"] <= row["memory"]
        assert row["devices"] == parse_topology(name).chips and row["batch"] == load_config(MAIN)[stage].batch


def test_state_falls_with_chips_and_traffic_stays_flat():
    rows = {
        row["slice"]: row for row in ROWS if (row["config"], row["stage"], row["quick"]) == (MAIN, "generator", False)
    }
    assert set(rows) >= set(GROWTH)
    held = [rows[name]["state"] * rows[name]["devices"] for name in GROWTH]
    assert max(held) / min(held) < 1.02
    traffic = [sent(rows[name]) for name in GROWTH]
    assert max(traffic) / min(traffic) < 1.35


def test_page_and_plot_are_made_of_these_figures():
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert page.split(BEGIN)[1].split(END)[0].strip() == table(ROWS).strip()
    assert (ROOT / "docs" / "scaling.svg").read_text() == plot(ROWS)
