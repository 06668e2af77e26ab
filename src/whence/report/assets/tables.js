// Words and numbers: the point under the mouse, the pins, the metrics and what is known of the case.

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const minus = (text) => String(text).replace("-", "\u2212");
const signed = (value) => (Math.abs(value) < 0.05 ? "0.0" : minus((value > 0 ? "+" : "") + value.toFixed(1)));
const short = (value) => minus(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
const fixed = (value, digits) => (typeof value === "number" ? minus(value.toFixed(digits)) : "\u2013");
const number = (value) => (typeof value === "number" ? minus(value.toPrecision(Math.abs(value) >= 100 ? 4 : 3)) : "\u2013");

function inFrame(mm, frame) {
  const shown = frame === "LPS" ? [-mm[0], -mm[1], mm[2]] : mm;
  return shown.slice(0, loaded.dims).map((v) => minus(v.toFixed(1).replace(/^-0\.0$/, "0.0"))).join(", ");
}

function coordinates(mm) {
  const title = `RAS ${inFrame(mm, "RAS")} mm\nLPS ${inFrame(mm, "LPS")} mm`;
  return make("span", { class: "mm", title }, inFrame(mm, state.frame));
}

function remark(pair) {
  const other = pair.side === "source" ? "prediction" : "source";
  if (!pair.inside) return `outside the ${other}'s field of view`;
  if (pair.novelty !== null && pair.novelty > NOVEL) return noveltyWarning(pair.novelty);
  return "";
}

function showPoint() {
  const pair = state.cursor || state.pins[state.selected];
  const box = byId("point");
  if (!pair) {
    box.replaceChildren(make("p", { class: "hint" }, "Move over an image to see where a point came from or went. Click to pin it."));
    return;
  }
  const warning = remark(pair);
  const row = (side, verb) =>
    make("div", { class: `row ${side === pair.side ? "own" : "partner"}`, "data-side": side }, make("span", { class: "what" }, verb), coordinates(pair[side]));
  const forward = pair.side === "prediction";
  const rows = forward
    ? [row("prediction", sideName("prediction")), row("source", `came from ${sideName("source").toLowerCase()}`)]
    : [row("source", sideName("source")), row("prediction", `went to ${sideName("prediction").toLowerCase()}`)];
  const moved = make("div", { class: "row moved" }, make("span", { class: "what" }, "moved"), make("strong", {}, `${pair.moved.toFixed(1)} mm`));
  if (pair.novelty !== null) moved.append(make("span", { class: "aside" }, `novelty ${pair.novelty.toFixed(2)}`));
  box.replaceChildren(...rows, moved, make("p", { class: "warning" }, warning));
}

function showPins() {
  const rows = state.pins.map((pin, i) => {
    const remove = make("button", { class: "plain", "aria-label": `Remove pin ${pin.number}`, onclick: (e) => (e.stopPropagation(), removePin(i)) }, "\u00d7");
    const warning = remark(pin);
    const cells = [
      make("td", {}, make("button", { class: "dot", style: `--dot:${pin.colour}`, "aria-label": `Show pin ${pin.number}` }, String(pin.number))),
      make("td", {}, coordinates(pin.source)),
      make("td", {}, coordinates(pin.prediction)),
      make("td", { class: "figure" }, pin.moved.toFixed(1)),
      make("td", { class: "flag", title: warning }, warning ? "!" : ""),
      make("td", {}, remove),
    ];
    return make("tr", { class: i === state.selected ? "selected" : "", onclick: () => selectPin(i) }, ...cells);
  });
  byId("pins").replaceChildren(...rows);
  byId("pin-table").hidden = rows.length === 0;
  byId("pin-tools").hidden = rows.length === 0;
}

function pinsAsCsv() {
  // label, x, y, z and frame are what `whence apply --points` reads: the point of the prediction.
  const names = ["x", "y", "z"].slice(0, loaded.dims);
  const head = ["label", ...names, "frame", ...names.map((n) => `source_${n}`), "moved_mm", "novelty", "clicked", "remark"];
  const exact = (mm) => mm.slice(0, loaded.dims).map((v) => v.toFixed(3));
  const rows = state.pins.map((pin) => [
    `P${pin.number}`, ...exact(pin.prediction), "RAS", ...exact(pin.source), pin.moved.toFixed(3), pin.novelty === null ? "" : pin.novelty.toFixed(3), pin.side, remark(pin),
  ]);
  return [head, ...rows].map((row) => row.join(",")).join("\n") + "\n";
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Whether a difference is for the better: 1, -1 or 0.
function verdict(metric, difference) {
  if (typeof difference !== "number" || difference === 0) return 0;
  return (metric.better === "lower") === difference < 0 ? 1 : -1;
}

// As many decimals as the spread is worth: two of its leading digits.
function decimals(metric) {
  const spread = metric.model?.sd || metric.nothing?.sd || 0;
  const size = spread > 0 ? spread / 10 : Math.abs(metric.model?.mean ?? 0) / 100;
  if (size === 0) return 0;
  return Math.max(0, Math.min(5, Math.ceil(-Math.log10(size) - 1e-9)));
}

function metricRow(metric, row) {
  const digits = decimals(metric);
  const spread = (figure) => (figure ? `${fixed(figure.mean, digits)} ± ${fixed(figure.sd, digits)}` : "\u2013");
  const both = typeof metric.model?.mean === "number" && typeof metric.nothing?.mean === "number";
  const difference = both ? metric.model.mean - metric.nothing.mean : null;
  const sense = verdict(metric, difference);
  const own = row[metric.name];
  // Figures of the trace itself have no counterpart, whatever the row says.
  const nothing = metric.nothing ? row[`${metric.name}_nothing`] ?? row[`nothing_${metric.name}`] : null;
  const mark = sense > 0 ? " better" : sense < 0 ? " worse" : "";
  const title = `${metric.better === "lower" ? "lower" : "higher"} is better; n = ${metric.model?.n ?? "?"} cases`;
  const unit = `${metric.unit ? ` ${metric.unit}` : ""} ${metric.better === "lower" ? "\u2193" : "\u2191"}`;
  const label = make("th", { scope: "row", title }, metric.label || metric.name, make("span", { class: "unit" }, unit));
  const shown = difference === null ? "\u2013" : (difference > 0 ? "+" : "") + fixed(difference, digits);
  return make(
    "tr", {}, label,
    make("td", {}, spread(metric.model)),
    make("td", {}, spread(metric.nothing)),
    make("td", { class: `difference${mark}` }, shown, make("span", { class: "word" }, mark)),
    make("td", { class: "own" }, fixed(own, digits), ...(typeof nothing === "number" ? [make("span", { class: "unit" }, ` / ${fixed(nothing, digits)}`)] : [])),
  );
}

const STATISTICS = {
  displacement_mean_mm: "mean distance moved, mm",
  displacement_max_mm: "largest distance moved, mm",
  folded_share: "folded voxels, share",
  novelty_mean: "mean novelty",
};

function showMetrics() {
  const row = loaded.row || {};
  const summarised = PAGE.metrics.length > 0;
  byId("metrics-none").hidden = summarised || PAGE.sweep !== null || Object.keys(row).length > 1;
  byId("metrics").hidden = !summarised;
  byId("metrics-body").replaceChildren(...PAGE.metrics.map((metric) => metricRow(metric, row)));
  const counts = PAGE.metrics.map((metric) => metric.model?.n).filter((n) => typeof n === "number");
  byId("metrics-n").textContent = counts.length ? `mean ± sd, n = ${Math.max(...counts)} cases${PAGE.split ? `, ${PAGE.split}` : ""}` : "";
  const plain = summarised ? [] : Object.entries(row).filter(([name]) => name !== "id");
  const list = (name, pairs) => (pairs.length ? [{ name, rows: pairs.map(([measure, value]) => ({ measure, value })) }] : []);
  const known = Object.entries(STATISTICS).filter(([name]) => typeof loaded.statistics[name] === "number");
  const statistics = known.map(([name, label]) => [label, loaded.statistics[name]]);
  const tables = [...list("Metrics of this case", plain), ...loaded.tables, ...list("This trace", statistics)];
  byId("tables").replaceChildren(...sweptTables(), ...tables.map((table) => plainTable(table, !summarised)));
}

function plainTable({ name, rows }, open) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value) => (typeof value === "number" ? minus(Number.isInteger(value) ? value : number(value)) : value ?? "\u2013");
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, column)));
  const body = rows.map((row) => make("tr", {}, ...columns.map((column) => make("td", {}, String(cell(row[column]))))));
  return make("details", { class: "extra", ...(open ? { open: "" } : {}) }, make("summary", {}, name), make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function showNotes() {
  const { image, field } = loaded.detail;
  const error = loaded.precision_mm;
  const notes = [`Partners agree with the stored fields within ${error < 0.01 ? "0.01" : error.toFixed(error < 0.1 ? 3 : 2)} mm.`];
  if (image > 1) notes.push(`Images shown at every ${image} voxels${field > 1 ? `, fields at every ${field}` : ""}.`);
  if (PAGE.total > PAGE.cases.length) notes.push(`Showing ${PAGE.cases.length} of ${PAGE.total} cases; write a report of one trace folder to see any other.`);
  if (loaded.folded > 0) notes.push(`The field folds at ${(100 * loaded.folded).toPrecision(2)} % of voxels (magenta under Volume change).`);
  for (const [key, value] of loaded.info) notes.push(`${key}: ${value}`);
  byId("notes").replaceChildren(...notes.map((note) => make("li", {}, note)));
}
