(() => {
"use strict";

const data = JSON.parse(document.getElementById("summary").textContent);
const $ = (id) => document.getElementById(id);

// Positions in a record, as page.py writes it.
const FILE = 0, LABEL = 1, CONFIDENCE = 2, SECOND = 3, OF_SECOND = 4, GIVEN = 5, STEPS = 6,
  THUMBNAIL = 7, FLAGS = 8, EXTRA = 9;
const IS_UNKNOWN = 1, IS_FILE = 2, IS_CHECKED = 4;
const MAX_CLASSES_SHOWN = 60;
const MAX_TABLE_ROWS = 2000;
const MAX_DIGIT = 9;
const MAX_PHOTOS_IN_BOX = 5;
// An image of at most so many pixels is shown enlarged, with crisp edges.
const MAX_TINY = 64;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const count = (n) => n.toLocaleString("en");
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

function percent(part) {
  if (part === null || part === undefined) return "–";
  const rounded = Math.round(100 * part);
  if (rounded === 100 && part < 1) return ">\u00a099\u00a0%";
  return rounded === 0 && part > 0 ? "<\u00a01\u00a0%" : `${rounded}\u00a0%`;
}

// ---------------------------------------------------------------- what is loaded when it is needed

const loading = new Map();

window.lowshotChunk = (name, content) => loading.get(name)?.resolve(content);

function load(name) {
  if (!loading.has(name)) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      const script = element("script", { src: `${data.data}/${name}.js` });
      const end = () => { script.remove(); loading.delete(name); };
      script.onload = end;
      script.onerror = () => {
        end();
        reject(new Error("A newer page has taken the place of this one: reload it."));
      };
      document.head.append(script);
    });
    loading.set(name, entry);
  }
  return loading.get(name).promise;
}

// Rows of the labels given: file, class or -1, whether the row stays without a label, group,
// whether the label was checked. Of files that are not there the class is a name.
let givenRows = null;
async function loadGiven() {
  if (givenRows === null) {
    const rows = [];
    for (let part = 0; part < data.givenFiles; part++) {
      for (const row of await load(`given/${part}`)) rows.push(row);
    }
    givenRows = rows;
  }
  return givenRows;
}

// ------------------------------------------------------------------------------------- corrections

// File → {label, group, checked}; an empty label takes one away, one that was checked is right.
let corrections = new Map();
let isSaved = true;
let isKept = true;
const history = [];

function readCorrections() {
  try {
    const found = JSON.parse(localStorage.getItem(data.key) ?? "{}");
    // Whatever somebody else has put there is no correction.
    const isText = ([, correction]) => typeof correction?.label === "string";
    corrections = new Map(Object.entries(found.labels ?? {}).filter(isText));
    isSaved = found.isSaved ?? true;
  } catch {
    corrections = new Map();
  }
}

function keepCorrections() {
  try {
    if (corrections.size) {
      localStorage.setItem(data.key, JSON.stringify({ labels: Object.fromEntries(corrections), isSaved }));
    } else {
      localStorage.removeItem(data.key);
    }
    isKept = true;
  } catch {
    isKept = false;
  }
}

async function dropWhatIsGiven() {
  if (!corrections.size) return;
  const before = corrections.size;
  for (const [file, label, stays, , wasChecked] of await loadGiven()) {
    const correction = corrections.get(file);
    const given = className(label);
    // An empty row says that a label was taken away only where there was one.
    if (correction && correction.label === given && (given || stays) && (wasChecked || !correction.checked)) corrections.delete(file);
  }
  if (corrections.size !== before) {
    keepCorrections();
    showCorrections();
    cells.forEach((_, place) => refresh(place));
    say(`${plural(before - corrections.size, "correction")} of an earlier page ${before - corrections.size === 1 ? "is" : "are"} among the given labels now.`);
  }
}

// Classes of the page, and behind them those that people have added.
function classNames() {
  const names = new Set(data.classes);
  for (const { label } of corrections.values()) if (label) names.add(label);
  return [...names];
}

function className(label) {
  if (typeof label === "string") return label;
  return label < 0 ? "" : data.classes[label];
}

function givenOf(record) {
  return className(record[GIVEN]);
}

// Whether the given label was found right, and no other one was set.
function isConfirmed(record) {
  const correction = corrections.get(record[FILE]);
  return Boolean(correction?.checked) && correction.label === givenOf(record);
}

function isChecked(record) {
  const correction = corrections.get(record[FILE]);
  if (correction?.checked) return true;
  return Boolean(record[FLAGS] & IS_CHECKED) && (!correction || correction.label === givenOf(record));
}

function shownLabel(record) {
  const correction = corrections.get(record[FILE]);
  if (correction) return correction.label;
  return className(record[LABEL]);
}

// Whatever the page has in several places of the same file is told by the file's name.
function correct(changes, what, isAccepted = false) {
  const before = [];
  for (const [record, label] of changes) {
    const file = record[FILE];
    const earlier = corrections.get(file);
    before.push([file, earlier, record]);
    const isGiven = label === givenOf(record);
    // Another label has not been checked, whatever was.
    const checked = (isAccepted && isGiven) || (Boolean(earlier?.checked) && earlier.label === label);
    if (isGiven && (!checked || record[FLAGS] & IS_CHECKED)) corrections.delete(file);
    else corrections.set(file, { label, group: record[EXTRA]?.group ?? "", ...(checked ? { checked } : {}) });
  }
  history.push(before);
  isSaved = corrections.size === 0;
  keepCorrections();
  showCorrections();
  say(what);
  const files = new Set(before.map(([file]) => file));
  cells.forEach((_, place) => { if (files.has(records[place][FILE])) refresh(place); });
}

function undo() {
  const before = history.pop();
  if (!before) {
    say("There is nothing to undo.");
    return;
  }
  for (const [file, earlier] of before) {
    if (earlier) corrections.set(file, earlier);
    else corrections.delete(file);
  }
  isSaved = corrections.size === 0;
  keepCorrections();
  showCorrections();
  cells.forEach((_, place) => refresh(place));
  const place = records.findIndex((record) => record[FILE] === before[0][0]);
  if (place >= 0) focusTile(place);
  say(`Undone: ${before.length === 1 ? before[0][0] : plural(before.length, "image")}.`);
}

function quoted(text) {
  // Readers may skip a space that begins a cell.
  return /^ |[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

async function labelsFile() {
  const rows = [];
  const add = (file, label, group, checked) => rows.push([file, label, group, checked && label ? "yes" : ""]);
  const others = new Map(corrections);
  for (const [file, label, stays, group, wasChecked] of await loadGiven()) {
    const correction = others.get(file);
    others.delete(file);
    const given = className(label);
    const now = correction ? correction.label : given;
    if (now || stays || group) add(file, now, group, correction?.checked || (wasChecked && now === given));
  }
  for (const [file, { label, group, checked }] of others) if (label) add(file, label, group, checked);
  const isThere = [true, true, data.hasGroups, rows.some((row) => row[3])];
  const lines = [["file", "label", "group", "checked"], ...rows].map((row) =>
    row.filter((_, column) => isThere[column]).map(quoted).join(",") + "\n");
  return { text: lines.join(""), n: rows.length };
}

async function save() {
  let file;
  try {
    file = await labelsFile();
  } catch (error) {
    say(error.message);
    return;
  }
  const address = URL.createObjectURL(new Blob([file.text], { type: "text/csv;charset=utf-8" }));
  const link = element("a", { href: address, download: "labels.csv", hidden: "" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  isSaved = true;
  keepCorrections();
  showCorrections();
  say(`labels.csv, with ${plural(file.n, "row")}, goes to your downloads. ${data.instruction}`);
}

function showCorrections() {
  const n = corrections.size;
  const kept = isKept ? "" : " This browser does not keep them: save before you leave.";
  $("corrections").textContent = n
    ? `${plural(n, "correction")}${isSaved ? ", saved to labels.csv." : ", not yet saved to labels.csv."} ${isSaved ? data.instruction : kept}`
    : "";
  $("save").textContent = n && !isSaved ? `Save labels (${count(n)} new)` : "Save labels";
  showDigits();
}

window.addEventListener("beforeunload", (event) => {
  if (corrections.size && !isSaved) event.preventDefault();
});

// The same page in another tab.
window.addEventListener("storage", (event) => {
  if (event.key !== data.key && event.key !== null) return;
  readCorrections();
  showCorrections();
  cells.forEach((_, place) => refresh(place));
});

// ------------------------------------------------------------------------------------------- tiles

const views = new Map(data.views.map((view) => [view.name, view]));
let view = null, page = 0, order = "desc";
let records = [], cells = [];
let current = 0, anchor = 0;
let selected = new Set();

function say(text) {
  $("status").textContent = text;
}

function address(file) {
  // A name may hold bytes that are no text.
  return file.split("/").map((part) => part.split(/([\udc80-\udcff])/u).map((piece) =>
    /^[\udc80-\udcff]$/u.test(piece) ? `%${(piece.charCodeAt(0) - 0xdc00).toString(16)}` : encodeURIComponent(piece.toWellFormed?.() ?? piece)
  ).join("")).join("/");
}

function original(record) {
  if (!(record[FLAGS] & IS_FILE)) return null;
  const file = record[FILE];
  return file.startsWith("/") ? `file://${address(file)}` : data.base + address(file);
}

function described(record) {
  const correction = corrections.get(record[FILE]);
  const extra = record[EXTRA] ?? {};
  const parts = [];
  if (correction && !isConfirmed(record)) {
    parts.push(correction.label ? `corrected to ${correction.label}` : "label taken away");
  } else if (record[LABEL] < 0) {
    parts.push("no label");
  } else {
    parts.push(data.classes[record[LABEL]]);
    if (record[GIVEN] >= 0) parts.push("given");
    else parts.push(percent(record[CONFIDENCE]));
    if (record[FLAGS] & IS_UNKNOWN) parts.push(`too uncertain: ${data.unknown}`);
  }
  if (isChecked(record)) parts.push("checked");
  if (isDone(record)) parts.push("done");
  if (extra.suggested >= 0) parts.push(`neighbours say ${data.classes[extra.suggested]}`);
  if (extra.similarity !== undefined) parts.push(`similarity ${extra.similarity.toFixed(3)}`);
  if (extra.problem) parts.push(`broken: ${extra.problem}`);
  return `${parts.join(", ")}; ${record[FILE]}`;
}

// Whether somebody has decided about a suspicious label.
function isDone(record) {
  return view.name === "suspicious" && (corrections.has(record[FILE]) || isChecked(record));
}

function tileContent(record) {
  const correction = corrections.get(record[FILE]);
  const extra = record[EXTRA] ?? {};
  const lines = [];
  const checked = isChecked(record) ? element("span", { class: "tag checked" }, "✓ checked") : null;
  if (correction && !isConfirmed(record)) {
    const was = record[LABEL] < 0 ? "no label" : data.classes[record[LABEL]];
    lines.push(element("span", { class: "name" }, correction.label || "no label"));
    lines.push(element("span", {}, element("span", { class: "tag corrected" }, "corrected"), ` was ${was} `, checked));
  } else if (record[LABEL] < 0) {
    lines.push(element("span", { class: "name" }, "no label"));
  } else {
    lines.push(element("span", { class: "name" }, data.classes[record[LABEL]]));
    if (record[GIVEN] >= 0) {
      lines.push(element("span", {}, element("span", { class: "tag given" }, "given"), " ", checked));
    } else {
      const second = record[SECOND] >= 0 && record[OF_SECOND] > 0.005
        ? `${data.classes[record[SECOND]]} ${percent(record[OF_SECOND])}` : "";
      const bar = element("span", { class: "bar-of", "aria-hidden": "true" }, element("i"));
      bar.firstChild.style.width = `${100 * record[CONFIDENCE]}%`;
      lines.push(bar);
      lines.push(element("span", {},
        record[FLAGS] & IS_UNKNOWN ? element("span", { class: "tag unknown" }, data.unknown) : null,
        ` ${percent(record[CONFIDENCE])} `,
        second ? element("span", { class: "second" }, `· ${second}`) : null));
    }
  }
  if (extra.suggested >= 0) {
    lines.push(element("span", { class: "second" }, `neighbours: ${data.classes[extra.suggested]}, ${percent(extra.suspicion)} suspicious`));
  }
  if (extra.similarity !== undefined) {
    lines.push(element("span", { class: "second" }, `similarity ${extra.similarity.toFixed(3)}`));
  }
  const link = original(record);
  const name = record[FILE].split("/").pop();
  lines.push(link === null
    ? element("span", { class: "file", title: record[FILE] }, name)
    : element("a", { class: "file", title: record[FILE], href: link, target: "_blank", rel: "noopener", tabindex: "-1" }, name));
  return lines;
}

function photo(record) {
  const problem = record[EXTRA]?.problem;
  const box = element("span", { class: "photo" });
  if (problem || !record[THUMBNAIL]) {
    box.append(element("span", { class: problem ? "problem" : "small" }, problem ?? "no thumbnail"));
    return box;
  }
  const image = element("img", {
    loading: "lazy", decoding: "async", alt: "", draggable: "false",
    width: data.thumbnailSize, height: data.thumbnailSize,
  });
  image.addEventListener("load", () => {
    if (Math.max(image.naturalWidth, image.naturalHeight) <= MAX_TINY) image.classList.add("tiny");
  });
  image.addEventListener("error", () => {
    box.replaceChildren(element("span", { class: "problem" }, "the thumbnail is not there: reload the page"));
  });
  image.src = `${data.thumbnails}/${record[THUMBNAIL]}`;
  box.append(image);
  return box;
}

function tile(record, place, column) {
  const cell = element("div", { class: "tile", role: "gridcell", tabindex: "-1", "aria-selected": "false", "aria-colindex": column });
  cell.dataset.place = place;
  cell.append(photo(record));
  describe(cell, record);
  return cell;
}

function refresh(place) {
  const cell = cells[place];
  while (cell.children.length > 1) cell.lastChild.remove();
  describe(cell, records[place]);
}

function describe(cell, record) {
  cell.append(...tileContent(record));
  cell.classList.toggle("done", isDone(record));
  cell.setAttribute("aria-label", described(record));
}

function mark() {
  cells.forEach((cell, place) => cell.setAttribute("aria-selected", selected.has(place)));
}

function focusTile(place) {
  if (!cells.length) return;
  cells[current]?.setAttribute("tabindex", "-1");
  current = Math.max(0, Math.min(place, cells.length - 1));
  cells[current].setAttribute("tabindex", "0");
  cells[current].focus();
}

function chosen() {
  return selected.size ? [...selected].sort((a, b) => a - b) : cells.length ? [current] : [];
}

// To the tile behind the last one that got a label.
function moveOn(places) {
  selected.clear();
  mark();
  const next = places[places.length - 1] + 1;
  focusTile(next);
  anchor = current;
  if (next >= cells.length && page + 1 < view.pages) {
    $("status").textContent += " This was the last image of the page; PageDown shows the next one.";
  }
}

function named(places) {
  return places.length === 1 ? records[places[0]][FILE] : plural(places.length, "image");
}

function setLabel(label) {
  const places = chosen();
  if (!places.length) return;
  const verb = places.length === 1 ? "is" : "are";
  correct(places.map((place) => [records[place], label]), `${named(places)} ${verb} ${label} now.`);
  moveOn(places);
}

function accept() {
  const places = chosen();
  const changes = places.map((place) => [records[place], shownLabel(records[place])]).filter(([, label]) => label);
  if (!changes.length) {
    say("There is no label that could be right: press Enter to type one.");
    return;
  }
  const label = changes.length === 1 ? changes[0][1] : "what the page says";
  correct(changes, `${named(places)}: ${label} is right.`, true);
  moveOn(places);
}

function clear() {
  const places = chosen();
  const changes = places.filter((place) =>
    corrections.get(records[place][FILE])?.label || (!corrections.has(records[place][FILE]) && givenOf(records[place]))
  ).map((place) => [records[place], ""]);
  if (!changes.length) {
    say("Nobody has given a label that could be taken away.");
    return;
  }
  correct(changes, `${named(places)}: the given label is taken away.`);
  moveOn(places);
}

function takeOther() {
  const changes = chosen().map((place) => {
    const suggested = records[place][EXTRA]?.suggested ?? records[place][SECOND];
    return [records[place], suggested >= 0 ? data.classes[suggested] : ""];
  }).filter(([, label]) => label);
  if (!changes.length) {
    say("No other class is suggested.");
    return;
  }
  const places = chosen();
  const label = changes.length === 1 ? changes[0][1] : "what was suggested";
  correct(changes, `${named(places)}: ${label} now.`);
  moveOn(places);
}

function showDigits() {
  const names = classNames().slice(0, MAX_DIGIT);
  $("digits").replaceChildren(...names.map((name, place) => {
    const button = element("button", { type: "button", title: name }, element("kbd", {}, String(place + 1)), ` ${name}`);
    button.addEventListener("click", () => setLabel(name));
    return button;
  }));
}

// ----------------------------------------------------------------------------------- the text box

function openLabelBox() {
  const places = chosen();
  if (!places.length) return;
  const first = records[places[0]];
  const suggested = first[EXTRA]?.suggested;
  $("label-title").textContent = places.length === 1 ? "Label of this image" : `Label of ${plural(places.length, "image")}`;
  $("label-files").textContent = places.length === 1 ? first[FILE] : places.slice(0, MAX_PHOTOS_IN_BOX).map((place) => records[place][FILE]).join(", ") + (places.length > MAX_PHOTOS_IN_BOX ? " …" : "");
  $("label-photos").replaceChildren(...places.slice(0, MAX_PHOTOS_IN_BOX).map((at) => photo(records[at])));
  $("class-list").replaceChildren(...classNames().map((name) => element("option", { value: name })));
  $("label-problem").textContent = "";
  $("label-input").value = suggested >= 0 && !corrections.has(first[FILE]) ? data.classes[suggested] : shownLabel(first);
  $("label-dialog").showModal();
  $("label-input").focus();
  $("label-input").select();
}

$("label-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const label = $("label-input").value.trim();
  const problem = !label ? "Type the name of a class."
    : label === data.unknown && !data.classes.includes(label) ? `“${label}” is what the label of an uncertain image is called, and no class.` : "";
  if (problem) {
    $("label-problem").textContent = problem;
    return;
  }
  $("label-dialog").close();
  const isNew = !classNames().includes(label);
  setLabel(label);
  if (isNew) $("status").textContent += " This class is new.";
});
$("label-cancel").addEventListener("click", () => $("label-dialog").close());
$("label-dialog").addEventListener("close", () => focusTile(current));

// ------------------------------------------------------------------------------- keys and the mouse

const KEYS = [
  [["← ↑ ↓ →"], "to the next image in this direction"],
  [["Home", "End"], "to the first, or the last, image of the page"],
  [["PageUp", "PageDown"], "to the page before, or behind"],
  [["Enter"], "type a label: one of the classes, or a new one"],
  [["1", "…", "9"], "one of the first nine classes, as they stand below the images"],
  [["Space"], "the label shown is right: it becomes a given one; a given one is checked, and never called suspicious again"],
  [["s"], "the second class, or what the neighbours of a suspicious label say"],
  [["Delete", "Backspace"], "take a given label away"],
  [["u"], "undo"],
  [["Shift + ← ↑ ↓ →"], "choose several images; so do clicks with Shift or Ctrl; a label is for all of them"],
  [["Ctrl + A"], "choose all images of the page"],
  [["o"], "open the file of the image"],
  [["Ctrl + S"], "save the labels"],
  [["Escape"], "choose none; close a window"],
  [["?"], "this list"],
];

function showHelp() {
  $("help-dialog").showModal();
}

// The tile above or below is the nearest one in that row of tiles, also across groups.
function vertically(direction) {
  const here = cells[current].getBoundingClientRect();
  const middle = (box) => box.left + box.width / 2;
  let best = null, row = null;
  for (let place = current + direction; place >= 0 && place < cells.length; place += direction) {
    const box = cells[place].getBoundingClientRect();
    if (Math.abs(box.top - here.top) < 2) continue;
    if (row === null) row = box.top;
    if (Math.abs(box.top - row) > 2) break;
    const distance = Math.abs(middle(box) - middle(here));
    if (best === null || distance < best.distance) best = { place, distance };
  }
  return best === null ? current : best.place;
}

function goTo(place, extends_) {
  focusTile(place);
  if (extends_) {
    selectRange();
  } else {
    anchor = current;
    selected.clear();
    mark();
  }
}

function selectRange() {
  const [low, high] = [Math.min(anchor, current), Math.max(anchor, current)];
  selected = new Set(Array.from({ length: high - low + 1 }, (_, step) => low + step));
  mark();
  say(`${plural(selected.size, "image")} chosen.`);
}

$("tiles").addEventListener("keydown", (event) => {
  if (!event.target.classList.contains("tile")) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") {
    selected = new Set(cells.keys());
    mark();
    say(`${plural(selected.size, "image")} chosen.`);
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    ArrowRight: () => goTo(current + 1, event.shiftKey),
    ArrowLeft: () => goTo(current - 1, event.shiftKey),
    ArrowDown: () => goTo(vertically(1), event.shiftKey),
    ArrowUp: () => goTo(vertically(-1), event.shiftKey),
    Home: () => goTo(0, event.shiftKey),
    End: () => goTo(cells.length - 1, event.shiftKey),
    PageDown: () => turn(page + 1, true),
    PageUp: () => turn(page - 1, true),
    Enter: openLabelBox,
    " ": accept,
    Delete: clear,
    Backspace: clear,
    u: undo,
    s: takeOther,
    o: () => cells[current].querySelector("a.file")?.click(),
    Escape: () => { selected.clear(); mark(); say("None chosen."); },
  };
  const digit = /^[1-9]$/.test(event.key) ? classNames()[Number(event.key) - 1] : undefined;
  const action = digit !== undefined ? () => setLabel(digit) : actions[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});

$("tiles").addEventListener("mousedown", (event) => {
  // Shift and a click would mark text.
  if (event.shiftKey && event.target.closest(".tile")) event.preventDefault();
});

$("tiles").addEventListener("click", (event) => {
  const cell = event.target.closest(".tile");
  if (!cell || event.target.closest("a")) return;
  const place = Number(cell.dataset.place);
  if (event.shiftKey) {
    focusTile(place);
    selectRange();
  } else if (event.ctrlKey || event.metaKey) {
    // The press of the button has moved the focus already, not the anchor.
    if (!selected.size) selected.add(anchor);
    if (place !== anchor && selected.has(place)) selected.delete(place);
    else selected.add(place);
    focusTile(place);
    anchor = place;
    mark();
    say(`${plural(selected.size, "image")} chosen.`);
  } else {
    goTo(place, false);
  }
});
$("tiles").addEventListener("dblclick", (event) => {
  if (event.target.closest(".tile") && !event.target.closest("a")) openLabelBox();
});
$("tiles").addEventListener("focusin", (event) => {
  const cell = event.target.closest(".tile");
  if (cell && Number(cell.dataset.place) !== current) focusTile(Number(cell.dataset.place));
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "s") {
    // Not the browser's own, which would save the page without its images.
    event.preventDefault();
    if (!event.repeat) save();
    return;
  }
  const isTyping = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "?" && !isTyping) {
    event.preventDefault();
    showHelp();
  } else if (event.key.startsWith("Arrow") && event.target === document.body && cells.length) {
    event.preventDefault();
    focusTile(current);
  }
});

// ------------------------------------------------------------------------------------ going around

function place(name, number, way) {
  const parts = new URLSearchParams({ list: name });
  if (number) parts.set("page", number + 1);
  if (way === "asc") parts.set("order", way);
  return `#${parts}`;
}

let moves = 0;

function turn(number, keepsFocus) {
  if (number < 0 || number >= view.pages) {
    say(number < 0 ? "This is the first page." : "This is the last page.");
    return;
  }
  wantsFocus = keepsFocus;
  location.hash = place(view.name, number, order);
}

let wantsFocus = false;

async function route() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const name = parts.get("list") ?? "glance";
  const move = ++moves;
  const focus = wantsFocus;
  wantsFocus = false;
  if (name === "report") {
    showReport();
    if (focus) $("view-title").focus();
    return;
  }
  view = views.get(name) ?? data.views.find((each) => each.n) ?? data.views[0];
  order = parts.get("order") === "asc" && isClass(view) ? "asc" : "desc";
  page = Math.max(0, Math.min(Number(parts.get("page") ?? 1) - 1 || 0, view.pages - 1));
  let content = { records: [] };
  if (view.pages) {
    try {
      content = await load(`${view.name}/${order === "asc" ? view.pages - 1 - page : page}`);
    } catch (error) {
      say(error.message);
      return;
    }
  }
  if (move !== moves) return;
  show(content);
  if (focus && cells.length) focusTile(0);
  else if (focus) $("view-title").focus();
}

const isClass = (view) => view.name.startsWith("class-");

function show(content) {
  records = order === "asc" ? [...content.records].reverse() : content.records;
  current = anchor = 0;
  selected.clear();
  cells = [];
  const groups = content.groups ?? [[0, ""]];
  const parts = groups.map(([start, title], number) => {
    const end = groups[number + 1]?.[0] ?? records.length;
    const row = element("div", { role: "row", class: "row" });
    for (let at = start; at < end; at++) {
      cells.push(tile(records[at], at, at - start + 1));
      row.append(cells[at]);
    }
    const grid = element("div", { role: "grid", class: "grid", "aria-multiselectable": "true", "aria-label": title || view.title, "aria-colcount": end - start }, row);
    if (!title) return grid;
    const classOf = view.name === "glance" ? data.classes.indexOf(title) : -1;
    return element("section", {}, element("h3", {}, classOf < 0 ? title : element("a", { href: place(`class-${classOf}`, 0, "desc") }, title)), grid);
  });
  $("tiles").replaceChildren(...(records.length ? parts : [element("p", {}, "There are none.")]));
  cells[0]?.setAttribute("tabindex", "0");
  if (moves > 1) say(`${view.title}${view.pages > 1 ? `, page ${count(page + 1)} of ${count(view.pages)}` : ""}.`);
  $("report").hidden = true;
  for (const id of ["tiles", "view-text", "bar"]) $(id).hidden = false;
  $("view-title").textContent = view.title;
  const listed = view.n < view.total && !view.text.startsWith("Of ") ? ` The first ${count(view.n)} of ${count(view.total)}.` : "";
  $("view-text").textContent = isClass(view) ? classText() : view.text + listed;
  $("order-label").hidden = !isClass(view);
  $("order").value = order;
  $("pager").hidden = view.pages < 2;
  $("page").max = view.pages;
  $("page").value = page + 1;
  $("pages").textContent = `of ${count(view.pages)}`;
  $("previous").disabled = page === 0;
  $("next").disabled = page + 1 >= view.pages;
  document.title = `${view.title} – ${data.title}`;
  showLinks();
}

function classText() {
  const row = data.classRows[Number(view.name.slice(6))] ?? [];
  const recall = row[2] === null || row[2] === undefined ? "" : `; of held-out labels of this class ${percent(row[2])} were found`;
  return `${plural(view.total, "image")}, ${count(row[0] ?? 0)} of them with a given label${recall}. ${view.text}`;
}

function showLinks() {
  const here = $("report").hidden ? view.name : "report";
  const link = (name, title, n) => element("li", {}, element("a", { href: place(name, 0, "desc"), "aria-current": name === here ? "page" : null },
    element("span", {}, title), n === null ? null : element("span", { class: "n" }, count(n))));
  $("views").replaceChildren(
    ...data.views.filter((each) => !isClass(each)).map((each) => link(each.name, each.title, each.name === "glance" ? null : each.total)),
    link("report", "Plots and tables", null));
  const wanted = $("class-filter").value.trim().toLocaleLowerCase();
  const found = data.views.filter((each) => isClass(each) && each.title.toLocaleLowerCase().includes(wanted));
  const shown = found.slice(0, MAX_CLASSES_SHOWN);
  const open = found.find((each) => each.name === here);
  if (open && !shown.includes(open)) shown.push(open);
  $("classes").replaceChildren(...shown.map((each) => link(each.name, each.title, each.total)));
  $("more-classes").textContent = !found.length ? "No class has such a name."
    : found.length > shown.length ? `${count(found.length - shown.length)} more: type a part of the name.` : "";
}

// The links are made anew, and the focus must not be lost with the one that was followed.
for (const id of ["views", "classes"]) {
  $(id).addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) wantsFocus = link.hash !== location.hash;
  });
}
$("class-filter").addEventListener("input", showLinks);
$("class-filter").addEventListener("keydown", (event) => {
  if (event.key === "Enter") $("classes").querySelector("a")?.click();
});
$("previous").addEventListener("click", () => turn(page - 1, false));
$("next").addEventListener("click", () => turn(page + 1, false));
$("page").addEventListener("change", () => turn(Math.round(Number($("page").value)) - 1, false));
$("order").addEventListener("change", () => { location.hash = place(view.name, 0, $("order").value); });
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  if ($("report").hidden && cells.length) focusTile(current);
  else $("view-title").focus();
});
window.addEventListener("hashchange", route);

// -------------------------------------------------------------------------- the head, and the report

function table(caption, headings, rows) {
  const cell = (tag, value, place) => element(tag, { class: place ? "number" : null, scope: tag === "th" ? "col" : null }, value ?? "–");
  return element("div", { class: "scroll" }, element("table", {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...headings.map((text, place) => cell("th", text, place)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((text, place) => cell("td", text, place)))))));
}

function showReport() {
  cells = records = [];
  selected.clear();
  $("tiles").replaceChildren();
  for (const id of ["tiles", "view-text", "bar", "pager", "order-label"]) $(id).hidden = true;
  const part = (value) => value === null || value === undefined ? "–" : percent(value);
  const parts = data.plots.map((plot) => element("figure", {},
    element("img", { src: `${data.data}/${plot.file}`, width: plot.width, height: plot.height, alt: plotText(plot), loading: "lazy" }),
    element("figcaption", {}, plot.title)));
  if (data.methods.length) {
    parts.push(table("Methods, by held-out labels", ["method", "accuracy", "±"],
      data.methods.map(([name, accuracy, error]) => [name, part(accuracy), part(error)])));
  }
  if (data.reliability.length) {
    parts.push(table("Held-out labels by their confidence", ["confidence", "labels", "mean confidence", "right"],
      data.reliability.map(([lower, upper, n, confidence, accuracy]) => [`${percent(lower)} to ${percent(upper)}`, count(n ?? 0), part(confidence), part(accuracy)])));
  }
  parts.push(table(data.classRows.length > MAX_TABLE_ROWS ? `The first ${count(MAX_TABLE_ROWS)} classes` : "Classes", ["class", "given labels", "images", "held-out labels found"],
    data.classRows.slice(0, MAX_TABLE_ROWS).map(([given, labels, recall], place) => [data.classes[place], count(given ?? 0), count(labels ?? 0), part(recall)])));
  $("report").replaceChildren(...parts);
  $("report").hidden = false;
  $("view-title").textContent = "Plots and tables";
  document.title = `Plots and tables – ${data.title}`;
  showLinks();
}

function plotText(plot) {
  const below = data.reliability.length ? "The table of held-out labels below has its numbers." : "";
  const texts = {
    "Reliability of the confidence": `How many held-out labels were right, at each confidence. ${data.calibration} ${below}`,
    "Confusion of classes": "Which class held-out labels of each class were taken for. The table of classes below says how many were found.",
    "Map of all images": "All images as points in two dimensions, coloured by label: images that look similar lie close to each other.",
  };
  return texts[plot.title] ?? plot.title;
}

function showHead() {
  $("facts").replaceChildren(...data.facts.map(([what, n]) => element("li", {}, element("b", {}, count(n)), ` ${what}`)));
  // Where too few labels were held out, that is what people have to know first.
  const isWarned = !data.isCalibrated && data.calibration;
  const method = data.method ? [`Method: ${data.method}.`, data.reason] : [data.reason];
  const sentences = [...method, isWarned ? "" : data.calibration, data.threshold];
  $("sentences").textContent = sentences.filter((text) => text).join(" ");
  const notes = data.notes.map((text) => element("p", { class: "note" }, text));
  const others = notes.length < 2 ? [] : [element("details", {}, element("summary", {}, plural(notes.length, "note")), ...notes)];
  $("notes").replaceChildren(
    ...(isWarned ? [element("p", { class: "note" }, data.calibration)] : []),
    ...(others.length ? others : notes));
  $("instruction").textContent = data.instruction;
  $("keys").replaceChildren(...KEYS.map(([keys, what]) => element("tr", {},
    element("th", { scope: "row" }, ...keys.flatMap((key, place) => [place ? " " : "", key === "…" ? key : element("kbd", {}, key)])),
    element("td", {}, what))));
  const size = Math.max(104, Math.min(data.thumbnailSize + 12, 240));
  document.documentElement.style.setProperty("--tile", `${size}px`);
}

$("label-button").addEventListener("click", openLabelBox);
$("accept-button").addEventListener("click", accept);
$("clear-button").addEventListener("click", clear);
$("undo-button").addEventListener("click", undo);
$("help-button").addEventListener("click", showHelp);
$("save").addEventListener("click", save);

// On a narrow screen the lists would stand before the images.
const isNarrow = window.matchMedia("(max-width: 46rem)");
const foldLists = () => { $("lists").open = !isNarrow.matches; };
isNarrow.addEventListener("change", foldLists);
foldLists();

readCorrections();
showHead();
showCorrections();
say("Arrow keys move between images, ? shows all keys.");
route().then(dropWhatIsGiven).catch((error) => say(error.message));
})();
