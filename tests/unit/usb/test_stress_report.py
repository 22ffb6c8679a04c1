# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of usb_stress have shown: rows, table and plot."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from plugins.filter.without_class import without_class
from plugins.module_utils.usb import stress_report


def run(way: str, seconds: list[float], failed: set[int] | None = None, first: float | None = None) -> dict[str, Any]:
    loops, at = [], 0.0
    for number, length in enumerate(seconds):
        loops.append({"at": at, "seconds": length, "failed": "no answer" if number in (failed or set()) else ""})
        at += length
    return {"way": way, "first_connect": first, "tests": {"cdc": loops}}


def test_loops_become_a_row_as_the_logs_of_the_original() -> None:
    """Ten loops of 20 ms are 0.20 s; a jump is more than three medians; a failed loop counts in neither."""
    (row,) = stress_report.rows([run("native", [0.02] * 20 + [0.07, 9.0], {21}, first=20.0)])
    assert (row.way, row.test, row.loops, row.failures, row.jumps) == ("native", "cdc", 22, 1, 1)
    assert (row.median, row.longest, row.first_connect, row.said) == (0.02, 0.07, 20.0, "no answer")
    assert row.ten is not None and [round(value, 6) for value in row.ten] == [0.2, 0.2]


def test_too_few_loops_have_no_ten_and_none_that_worked_no_median() -> None:
    (row,) = stress_report.rows([run("direct", [60.0, 60.0], {0, 1})])
    assert (row.failures, row.median, row.longest, row.ten, row.jumps) == (2, None, None, None, 0)


def test_the_table_has_a_line_for_each_row_and_one_for_each_first_failure() -> None:
    runs = [run("native", [0.02] * 21), run("impaired", [2.5, 60.0], {1}, 12.3)]
    assert stress_report.table(stress_report.rows(runs)).splitlines() == [
        "way       test  loops  failed   median  longest  per 10 loops  jumps  first connect",
        "native    cdc      21       0  20.0 ms  20.0 ms   0.20-0.20 s      0              -",
        "impaired  cdc       2       1   2.50 s   2.50 s             -      0        12.30 s",
        "impaired, cdc: no answer",
    ]


def test_a_way_that_failed_as_a_whole_has_a_row_with_what_it_said() -> None:
    runs = [run("native", [0.02] * 21), {"way": "lane", "first_connect": None, "tests": {}, "said": "in use"}]
    *_others, row, said = stress_report.table(stress_report.rows(runs)).splitlines()
    assert row.split() == ["lane", "none", "0", "0", "-", "-", "-", "0", "-"]
    assert said == "lane, none: in use"
    ElementTree.fromstring(stress_report.plot(runs))


def test_the_plot_is_an_image_with_a_line_for_each_way_and_a_dot_for_each_failure() -> None:
    image = ElementTree.fromstring(stress_report.plot([run("a&b", [0.02, 0.03, 4.0], {2}), run("c", [0.1])]))
    names = [element.tag.rpartition("}")[2] for element in image.iter()]
    assert (names.count("polyline"), names.count("circle")) == (2, 1)
    assert "a&b" in "".join(image.itertext())


def test_a_class_is_left_out_on_every_interface_that_has_classes() -> None:
    one, other = {"name": "usbip"}, {"name": "device"}
    asked: list[dict[str, Any]] = [{"name": "eth0", "classes": [one, other]}, {"name": "eth1", "delay": "5ms"}]
    assert without_class(asked, "usbip") == [{"name": "eth0", "classes": [other]}, {"name": "eth1", "delay": "5ms"}]
    assert asked[0]["classes"] == [one, other]
