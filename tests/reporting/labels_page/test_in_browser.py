"""What people see and do on the page, in Chromium without a window."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.label_files import LabelRow
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from tests.browser import BROWSER, CONTROL, SHIFT, Person, headless_browser
from tests.reporting.labels_page.making import Shades, folders, labeling_of, page_of, summary

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")

CLASSES = ("cat", "dog", "Weiß, 写真")


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with headless_browser.opened_page(BROWSER, 1200, 900) as page:
        yield Person(page, tmp_path_factory.mktemp("downloads"))


def as_seen(person: Person, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
    person.page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    person.page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )


LABELED = ["a.png", "b, 'quoted' \"x\".png"]
OTHERS = ["c.png", "d.png", "e.png", "f #50% ?&+.png", "Straße 写真 💩.png"]
NAMES = [*(f"labeled/{name}" for name in sorted(LABELED)),
         *(f"others/{name}" for name in sorted(OTHERS))]  # fmt: skip


def small_page(root: Path, given: tuple[int, ...] = (0, 0, -1, -1, -1, -1, -1), **changes):
    images = folders(root, LABELED, OTHERS)
    assert [images.file(number) for number in range(7)] == NAMES
    confidence = np.where(np.array(given) >= 0, 1, np.linspace(0.95, 0.35, 7))
    labels = np.where(np.array(given) >= 0, given, [0, 0, 0, 0, 0, 1, 1])
    labeling = labeling_of(
        changes.pop("classes", CLASSES), given, labels, confidence,
        checked=changes.pop("checked", None),
    )  # fmt: skip
    return page_of(images, labeling, **changes)


def test_three_labels_corrected_by_keyboard_alone_are_saved_and_honoured(person, tmp_path):
    path = tmp_path / "labels.html"
    small_page(tmp_path / "images").write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 5")

    person.tabs_to("skip")
    person.presses("Enter")
    assert person.focused == NAMES[0]
    person.presses("ArrowRight", "Delete")
    assert "taken away" in person.is_told
    assert person.focused == NAMES[2]
    person.presses("2")
    assert person.is_told == f"{NAMES[2]} is dog now."
    assert person.focused == NAMES[3]
    person.presses("Enter")
    assert person.sees("document.activeElement.id") == "label-input"
    person.types('new, "class"')
    person.presses("Enter")
    assert "This class is new" in person.is_told
    assert person.focused == NAMES[4]
    assert person.counted.startswith("3 corrections, not yet saved")
    assert person.sees(
        "{const e = new Event('beforeunload', {cancelable: true}); "
        "window.dispatchEvent(e); e.defaultPrevented}"
    )

    person.tabs_to("save", modifiers=SHIFT)
    person.presses("Enter")
    expected = {NAMES[0]: "cat", NAMES[1]: "", NAMES[2]: "dog", NAMES[3]: 'new, "class"'}
    header, *rows = person.saved()
    assert header == ["file", "label"]
    assert dict(rows) == expected and len(rows) == 4
    assert "saved to labels.csv" in person.counted
    assert not person.sees(
        "{const e = new Event('beforeunload', {cancelable: true}); "
        "window.dispatchEvent(e); e.defaultPrevented}"
    )

    # They outlive the page, and end when the next page's given labels say the same.
    person.opens(path, "#list=class-0")
    assert person.counted.startswith("3 corrections, saved")
    classes = ("cat", "dog", 'new, "class"')
    given = [classes.index(expected[name]) if expected.get(name) else -1 for name in NAMES]
    small_page(tmp_path / "images", tuple(given), classes=classes).write(path)
    person.opens(path)
    person.page.wait_for("document.getElementById('corrections').textContent === ''")
    assert person.sees("Object.keys(localStorage).length") == 0
    person.clicks("document.getElementById('save')")
    assert person.saved() == [["file", "label"], *([name, expected[name]] for name in NAMES[:4])]


def test_what_others_have_stored_is_no_correction(person, tmp_path):
    path = tmp_path / "labels.html"
    small_page(tmp_path / "images", tuple([0, 1] + [-1] * (len(NAMES) - 2))).write(path)
    person.opens(path)
    key = person.sees("JSON.parse(document.getElementById('summary').textContent).key")
    for stored in ({NAMES[1]: None}, {NAMES[1]: 5}, {NAMES[1]: {"label": 5}}, "text"):
        text = json.dumps(json.dumps({"labels": stored}))
        person.sees(f"localStorage.setItem({json.dumps(key)}, {text})")
        person.opens(path)
        person.page.wait_for("document.querySelectorAll('.tile').length > 0")
        assert person.counted == ""
    person.sees("localStorage.clear()")


def test_what_keys_do(person, tmp_path):
    path = tmp_path / "labels.html"
    small_page(
        tmp_path / "images",
        suspicious=SuspiciousLabels(np.array([1], np.int32), np.array([0.9], np.float32),
                                    np.array([2], np.int32), "A rule."),
    ).write(path)  # fmt: skip
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 5")
    person.tabs_to("skip")
    person.presses("Enter", "End")
    assert person.focused == NAMES[4]
    person.presses("Home", "ArrowLeft")
    assert person.focused == NAMES[0]
    # A guess that is right becomes a given label; one that nobody has given cannot be taken away.
    person.presses("ArrowRight", "ArrowRight", "Backspace")
    assert person.focused == NAMES[2] and person.counted == ""
    person.presses(" ")
    assert person.focused == NAMES[3] and person.counted.startswith("1 correction,")
    # Several at once, and all of them undone.
    person.presses("ArrowRight", modifiers=SHIFT)
    assert person.sees("document.querySelectorAll('[aria-selected=true]').length") == 2
    person.presses("3")
    assert person.counted.startswith("3 corrections,")
    assert person.sees("document.querySelectorAll('.tile')[4].getAttribute('aria-label')") == (
        f"corrected to {CLASSES[2]}; {NAMES[4]}"
    )
    person.presses("u")
    assert person.counted.startswith("1 correction,")
    person.presses("u", "u")
    assert person.counted == "" and person.is_told == "There is nothing to undo."
    # Windows close with Escape, and the focus is where it was.
    before = person.focused
    person.presses("Enter")
    person.types("something")
    person.presses("Escape")
    assert person.focused == before and person.counted == ""
    person.presses("?")
    assert person.sees("document.getElementById('help-dialog').open")
    person.presses("Escape")
    assert person.focused == before
    # The name of what is too uncertain is no class.
    person.presses("Enter")
    person.types("unknown")
    person.presses("Enter")
    assert "no class" in person.sees("document.getElementById('label-problem').textContent")
    person.presses("Escape")
    # What neighbours say of a suspicious label.
    person.goes_to("#list=suspicious")
    person.page.wait_for("document.querySelectorAll('.tile').length === 1")
    person.tabs_to("skip", modifiers=SHIFT)
    person.presses("Enter", "s")
    assert person.is_told.startswith(f"{NAMES[1]}: {CLASSES[2]} now.")
    # One tile alone is a stop of the key Tab.
    assert person.sees("document.querySelectorAll('.tile[tabindex=\"0\"]').length") == 1
    person.presses("u")


def test_the_focus_follows_a_link_to_a_list(person, tmp_path):
    path = tmp_path / "labels.html"
    small_page(tmp_path / "images").write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 5")
    # Arrow keys need no tile to start from.
    person.presses("ArrowRight")
    assert person.focused == NAMES[0]
    follow = "{const a = document.querySelector('a[href*=\"list=%s\"]'); a.focus()}"
    person.sees(follow % "class-1")
    person.presses("Enter")
    person.page.wait_for("document.activeElement.matches('.tile')")
    assert person.focused == NAMES[5]
    # A list without images, and the plots, have a heading.
    for empty in ("duplicates", "report"):
        person.sees(follow % empty)
        person.presses("Enter")
        person.page.wait_for("document.activeElement.id === 'view-title'")
    person.sees(follow % "class-1")
    person.presses("Enter")
    person.page.wait_for("document.activeElement.matches('.tile')")
    person.presses("1")
    person.presses("s", modifiers=CONTROL)
    assert [NAMES[5], "cat"] in person.saved()
    person.presses("u")


def test_what_the_mouse_does(person, tmp_path):
    path = tmp_path / "labels.html"
    small_page(tmp_path / "images").write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 5")
    tiles = [f"document.querySelectorAll('.tile')[{place}]" for place in range(5)]
    person.clicks(tiles[2])
    person.clicks(tiles[4], modifiers=CONTROL)
    person.clicks("document.querySelectorAll('#digits button')[1]")
    assert person.is_told == "2 images are dog now."
    person.clicks(tiles[0])
    person.clicks(tiles[1], modifiers=SHIFT)
    person.clicks("document.getElementById('clear-button')")
    assert person.counted.startswith("4 corrections,")
    person.clicks("document.getElementById('undo-button')")
    assert person.counted.startswith("2 corrections,")
    person.clicks("document.getElementById('save')")
    _, *rows = person.saved()
    assert dict(rows) == {NAMES[0]: "cat", NAMES[1]: "cat", NAMES[2]: "dog", NAMES[4]: "dog"}


def test_groups_stay_in_the_file(person, tmp_path):
    images = folders(tmp_path / "images", ["a.png"], ["b.png", "c.png"])
    labeling = labeling_of(
        CLASSES, [0, -1, -1], [0, 0, 0], [1, 0.9, 0.8], [0, 1, -1], ["left, eye", "right"]
    )
    path = tmp_path / "labels.html"
    page_of(images, labeling).write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 3")
    person.tabs_to("skip")
    person.presses("Enter", "ArrowRight", "2", "3")
    person.clicks("document.getElementById('save')")
    assert person.saved() == [
        ["file", "label", "group"],
        ["labeled/a.png", "cat", "left, eye"],
        ["others/b.png", "dog", "right"],
        ["others/c.png", CLASSES[2], ""],
    ]


def aria(person: Person, place: int) -> str:
    return person.sees(f"document.querySelectorAll('.tile')[{place}].getAttribute('aria-label')")


def done(person: Person) -> list[bool]:
    return person.sees("[...document.querySelectorAll('.tile')].map(t => t.matches('.done'))")


def suspicious_page(root: Path, checked: tuple[int, ...] = ()):
    """The labels of both given images are suspicious, unless they were checked."""
    nodes = np.array([number for number in (0, 1) if number not in checked], np.int32)
    n = len(nodes)
    return small_page(
        root,
        checked=[number in checked for number in range(7)] if checked else None,
        suspicious=SuspiciousLabels(nodes, np.full(n, 0.9, np.float32), np.full(n, 1, np.int32),
                                    "A rule."),
    )  # fmt: skip


def test_a_suspicious_label_that_is_right_is_checked_for_good(person, tmp_path):
    path = tmp_path / "labels.html"
    suspicious_page(tmp_path / "images").write(path)
    person.opens(path, "#list=suspicious")
    person.page.wait_for("document.querySelectorAll('.tile').length === 2")
    person.sees("localStorage.clear()")
    person.tabs_to("skip")
    person.presses("Enter", " ")
    assert person.is_told == f"{NAMES[0]}: cat is right."
    assert person.focused == NAMES[1]
    assert person.counted.startswith("1 correction, not yet saved")
    assert aria(person, 0) == f"cat, given, checked, done, neighbours say dog; {NAMES[0]}"
    assert "✓ checked" in person.sees("document.querySelector('.tile').textContent")
    assert done(person) == [True, False]
    # Undone, done again, and once more, which changes nothing.
    person.presses("u")
    assert person.counted == "" and person.focused == NAMES[0] and done(person) == [False, False]
    person.presses(" ", "ArrowLeft", " ", "ArrowLeft", "1")
    assert person.counted.startswith("1 correction,") and done(person) == [True, False]
    # Another label has not been checked, nor has the one that was there before.
    person.presses("ArrowLeft", "2")
    assert aria(person, 0) == f"corrected to dog, done, neighbours say dog; {NAMES[0]}"
    person.presses("ArrowLeft", "1")
    assert person.counted == "" and aria(person, 0).startswith("cat, given, neigh")
    person.presses("ArrowLeft", " ")
    # A guess that is right is a new label, and nobody has looked at it twice.
    person.goes_to("#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 5")
    assert aria(person, 0) == f"cat, given, checked; {NAMES[0]}"
    assert done(person) == [False] * 5
    person.sees("document.querySelectorAll('.tile')[2].focus()")
    person.presses(" ")
    expected = [
        ["file", "label", "checked"],
        [NAMES[0], "cat", "yes"],
        [NAMES[1], "cat", ""],
        [NAMES[2], "cat", ""],
    ]
    person.presses("s", modifiers=CONTROL)
    assert person.saved() == expected
    person.presses("u")

    # It outlives the page, and ends when the next page's given labels say the same.
    suspicious_page(tmp_path / "images").write(path)
    person.opens(path, "#list=suspicious")
    person.page.wait_for("document.querySelectorAll('.tile.done').length === 1")
    assert person.counted.startswith("1 correction,")
    suspicious_page(tmp_path / "images", checked=(0,)).write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.getElementById('corrections').textContent === ''")
    assert person.sees("Object.keys(localStorage).length") == 0
    assert aria(person, 0) == f"cat, given, checked; {NAMES[0]}"
    person.tabs_to("skip")
    person.presses("Enter", " ")
    assert person.counted == ""
    person.presses("s", modifiers=CONTROL)
    assert person.saved() == expected[:3]
    # Where it is relabelled it is no longer checked; where the label comes back it is.
    person.presses("ArrowLeft", "2")
    assert aria(person, 0) == f"corrected to dog; {NAMES[0]}"
    person.presses("s", modifiers=CONTROL)
    assert person.saved() == [["file", "label"], [NAMES[0], "dog"], [NAMES[1], "cat"]]
    person.sees("document.querySelector('.tile').focus()")
    person.presses("1")
    assert person.counted == "" and aria(person, 0).startswith("cat, given, checked;")


def test_rows_of_files_that_are_not_there_stay_in_the_file(person, tmp_path):
    missing = [
        LabelRow("gone/1.png", "zebra, striped", "far", True),
        LabelRow(" gone 2.png", "cat"),
        LabelRow("gone/3.png", None),
        LabelRow("gone/4.png", "-1"),
    ]
    images = folders(tmp_path / "images", ["a.png"], ["b.png"])
    labeling = labeling_of(CLASSES, [0, -1], [0, 0], [1, 0.9], missing=missing)
    path = tmp_path / "labels.html"
    page_of(images, labeling).write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 2")
    person.tabs_to("skip")
    person.presses("Enter", "2", "s")
    person.presses("s", modifiers=CONTROL)
    saved = [
        ["file", "label", "group", "checked"],
        ["labeled/a.png", "dog", "", ""],
        *([file, label or "", group or "", "yes" if checked else ""]
          for file, label, group, checked in missing),
        ["others/b.png", "dog", "", ""],
    ]  # fmt: skip
    assert person.saved() == saved
    # What was corrected while the file was there, and of a class that nothing has, still counts.
    key = json.dumps(summary(path)["key"])
    person.sees(
        f"localStorage.setItem({key}, JSON.stringify({{isSaved: false, labels: {{"
        "'gone/1.png': {label: 'zebra, striped', group: 'far'}, "
        "'gone/4.png': {label: 'ape', group: ''}}}))"
    )
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.getElementById('corrections').textContent.startsWith('1 cor')")
    person.presses("s", modifiers=CONTROL)
    found = person.saved()
    assert ["gone/4.png", "ape", "", ""] in found and saved[2] in found and len(found) == 6
    person.sees(f"localStorage.removeItem({key})")


def test_names_can_do_no_harm_and_links_lead_to_files(person, tmp_path):
    evil = "<img src=x onerror=document.title='hit'>"
    classes = ("</script><script>window.hit=1</script>", "<b>bold</b>", "{{summary}}")
    # The folder of the page is not that of the images, and neither has a plain name.
    out = tmp_path / "out #1 %41?"
    out.mkdir()
    images = folders(tmp_path / "images", LABELED, [*OTHERS[:4], f"{evil}.png"])
    labeling = labeling_of(classes, [0, 0, -1, -1, -1, -1, -1], [0] * 7, [1, 1, *[0.9] * 5])
    path = out / "labels </title>&.html"
    page_of(images, labeling, title=evil).write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 7")
    person.page.wait_for(
        "[...document.querySelectorAll('.tile img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert person.sees("window.hit") is None
    assert person.sees("document.querySelectorAll('img[src=x], b.name').length") == 0
    assert person.sees("document.getElementById('title').textContent") == evil
    assert person.sees("document.getElementById('view-title').textContent") == classes[0]
    links = person.sees("[...document.querySelectorAll('.tile a.file')].map(a => a.href)")
    found = sorted(Path(unquote(urlparse(link).path)).resolve() for link in links)
    assert found == sorted(images.path(number).resolve() for number in range(7))
    assert all(file.is_file() for file in found)
    assert not any(urlparse(link).query or urlparse(link).fragment for link in links)


CONTRAST = """(() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return getComputedStyle(e).backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    const hasText = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!hasText || e.disabled || !e.checkVisibility() || e.closest("script")) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.tagName, e.className, e.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""


@pytest.fixture(scope="module")
def rich_page(tmp_path_factory) -> Path:
    """A page that has something of everything."""
    folder = tmp_path_factory.mktemp("rich")
    buffer = io.BytesIO()
    Image.new("RGB", (70, 30)).save(buffer, "PNG")
    small_page(
        folder / "images", (0, 0, -1, -1, -1, -1, 2),
        next_images=NextImages(np.array([4, 5], np.int32), "A rule."),
        suspicious=SuspiciousLabels(np.array([1], np.int32), np.array([0.9], np.float32),
                                    np.array([2], np.int32), "A rule."),
        checked=(True, *[False] * 6),
        duplicates=Duplicates(np.array([2, 3], np.int32), np.array([0, 0], np.int32),
                              np.ones(2, np.float32)),
        broken=[(6, "it is broken: a very long explanation of what is wrong with this file")],
        plots={"confusion": buffer.getvalue()},
    ).write(folder / "labels.html")  # fmt: skip
    return folder / "labels.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(person, rich_page, scheme):
    as_seen(person, scheme=scheme)
    try:
        person.opens(rich_page, "#list=class-0")
        person.page.wait_for("document.querySelectorAll('.tile').length > 0")
        ground = person.sees("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(",")))
        assert (brightness < 200) is (scheme == "dark")
        person.tabs_to("skip")
        person.presses("Enter", "2", " ")
        person.presses("ArrowRight", modifiers=SHIFT)
        places = ["glance", "class-0", "suspicious", "duplicates", "broken", "report"]
        for place in places:
            person.goes_to(f"#list={place}")
            found = person.sees(CONTRAST)
            assert len(found) > 20
            assert found[0][0] >= 4.5, (place, found[0])
        person.goes_to("#list=class-0")
        person.presses("?")
        assert person.sees(CONTRAST)[0][0] >= 4.5
        person.presses("Escape")
        # The tile with the focus has a frame that can be seen.
        person.sees("document.querySelector('.tile').focus()")
        outline = person.sees("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
    finally:
        as_seen(person)
        person.sees("localStorage.clear()")


# 640 pixels at twice the size are 320.
@pytest.mark.parametrize("width", [400, 320])
def test_a_narrow_page_needs_no_scrolling_sideways(person, rich_page, width):
    as_seen(person, width, 700)
    try:
        person.opens(rich_page)
        for place in ("glance", "class-0", "suspicious", "broken", "report"):
            person.goes_to(f"#list={place}")
            assert person.sees("document.documentElement.scrollWidth") <= width, place
    finally:
        as_seen(person)


def test_a_focused_tile_is_not_hidden(person, tmp_path):
    path = tmp_path / "labels.html"
    labeling = labeling_of(CLASSES, [-1] * 60, [0] * 60, [0.9] * 60)
    page_of(JoinedImages([Shades(60)]), labeling).write(path)
    as_seen(person, 700, 700)
    try:
        person.opens(path, "#list=class-0")
        person.page.wait_for("document.querySelectorAll('.tile').length === 60")
        person.tabs_to("skip")
        person.presses("Enter")
        for key in ["ArrowDown"] * 6 + ["ArrowUp"] * 3 + ["End", "Home"]:
            person.presses(key)
            top, bottom, bar = person.sees(
                "[document.activeElement, document.getElementById('bar')]"
                ".map(e => e.getBoundingClientRect()).flatMap((box, place) => "
                "place ? [box.top] : [box.top, box.bottom])"
            )
            assert top >= 0 and bottom <= bar, key
    finally:
        as_seen(person)


def test_a_hundred_thousand_images_open_at_once(person, tmp_path):
    n_images, n_classes = 100_000, 1000
    classes = tuple(f"class {number:04}" for number in range(n_classes))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n_images)
    labels[labels < 2] = 0
    # Thumbnails of so many images take half a minute; broken ones have none.
    broken = [(number, "broken") for number in range(n_images)]
    page = page_of(
        JoinedImages([Shades(n_images)]),
        labeling_of(classes, [-1] * n_images, labels, rng.uniform(0.4, 1, n_images)),
        broken=broken,
    )
    path = tmp_path / "labels.html"
    page.write(path)
    assert path.stat().st_size < 400_000
    person.opens(path)
    person.page.wait_for("document.querySelectorAll('.tile').length > 0")
    assert person.sees("document.querySelectorAll('.tile').length") <= 200
    assert person.sees("document.querySelectorAll('*').length") < 5000
    # Classes are found by a part of their name.
    assert person.sees("document.querySelectorAll('#classes a').length") < 100
    person.clicks("document.getElementById('class-filter')")
    person.types("0777")
    assert person.sees("document.querySelector('#classes').textContent").startswith("class 0777")
    person.presses("Enter")
    n_of_class = int((labels == 777).sum())
    person.page.wait_for(f"document.querySelectorAll('.tile').length === {n_of_class}")
    # Pages turn by keys, with the focus on the first image.
    person.goes_to("#list=class-0")
    n_of_class = int((labels == 0).sum())
    assert n_of_class > 200
    person.page.wait_for("document.querySelectorAll('.tile').length === 200")
    first = person.sees("document.querySelector('.tile .file').title")
    person.sees("document.querySelector('.tile').focus()")
    person.presses("PageDown")
    person.page.wait_for(f"document.querySelectorAll('.tile').length === {n_of_class - 200}")
    assert person.focused not in ("", first)
    assert "page 2 of 2" in person.is_told
    last = person.sees("[...document.querySelectorAll('.tile .file')].pop().title")
    # The other way round the last one is first.
    person.goes_to("#list=class-0&order=asc")
    person.page.wait_for("document.getElementById('order').value === 'asc'")
    assert person.sees("document.querySelector('.tile .file').title") == last


def test_an_old_page_says_that_there_is_a_newer_one(person, tmp_path):
    path = tmp_path / "labels.html"
    small_page(tmp_path / "images").write(path)
    person.opens(path, "#list=class-0")
    person.page.wait_for("document.querySelectorAll('.tile').length === 5")
    small_page(tmp_path / "images", (0, 1, -1, -1, -1, -1, -1)).write(path)
    person.goes_to("#list=class-1")
    person.page.wait_for("document.getElementById('status').textContent.includes('newer page')")


def test_nothing_runs_but_the_page_and_nothing_is_wrong_with_it(person, rich_page):
    """The browser refuses whatever the page's own policy does not allow."""
    person.opens(rich_page)
    person.sees(
        "window.refused = []; document.addEventListener('securitypolicyviolation', "
        "(event) => window.refused.push(event.violatedDirective)); "
        "document.body.insertAdjacentHTML('beforeend', '<p id=odd onclick=\"window.hit=1\">x</p>');"
        "document.getElementById('odd').click()"
    )
    person.page.wait_for("window.refused.length === 1")
    assert person.sees("window.hit") is None
    person.opens(rich_page)
    # Everything that can be operated has a name.
    nameless = person.sees(
        "[...document.querySelectorAll('button, input, select, a, [role]')].filter(e => "
        "!e.textContent.trim() && !e.getAttribute('aria-label') && !e.labels?.length && "
        "!e.getAttribute('aria-labelledby') && e.id !== 'status' && !e.matches('.problem'))"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []
