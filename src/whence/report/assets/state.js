// What the page shows now. One object, changed only through the functions of this file and redrawn after.

const PAGE = JSON.parse(document.getElementById("page").textContent);
const FONT = '"Inter", "Segoe UI", system-ui, -apple-system, "Helvetica Neue", Arial, sans-serif';
const NOVEL = 0.5;

const OVERLAYS = [
  { key: "grid", name: "Deformed grid", opacity: 0.7, hint: "Lines of a regular grid in the source, carried to the prediction" },
  { key: "arrows", name: "Displacement", opacity: 0.9, hint: "Arrows from source to prediction, in true length" },
  { key: "magnitude", name: "Distance moved", opacity: 0.55, hint: "How far each point moved, mm, inside the body" },
  {
    key: "jacobian",
    name: "Volume change",
    opacity: 0.6,
    hint: "Volume of the tissue in the prediction over that in the source, 1/det J of the field; magenta: folded",
  },
  { key: "novelty", name: "Novelty", opacity: 0.65, hint: "0 to 1: how little of the prediction the warped source explains" },
  { key: "labels", name: "Carried labels", opacity: 0.5, hint: "Labels of the source, carried to the prediction" },
];

// What the images are called: those of a registration or a comparison are nobody's prediction.
const SIDES = {
  registered: { source: "Moving", prediction: "Fixed" },
  compared: { source: "Moving", prediction: "Moving on the fixed grid", target: "Fixed" },
};
const USUAL = { source: "Source", prediction: "Prediction", target: "Target (true)" };

function sideName(side) {
  // A trace may name its own.
  return { ...USUAL, ...SIDES[loaded?.kind], ...loaded?.sides }[side];
}

const state = {
  caseIndex: 0,
  plane: "axial",
  slice: { source: 0, prediction: 0 },
  zoom: 1,
  pan: [0, 0, 0],
  frame: "RAS",
  follow: true,
  blend: 2,
  channel: 0,
  third: null,
  overlays: Object.fromEntries(OVERLAYS.map(({ key, opacity }) => [key, { on: false, opacity }])),
  hidden: new Set(),
  windows: {},
  gridStep: 10,
  cursor: null,
  pins: [],
  selected: null,
};

let loaded = null;
let wanted = null;

function sidePlane(side) {
  return slicesAlong(loaded.grids[side], PLANES[state.plane].n);
}

function snap(side, mm) {
  const { first, step, count } = sidePlane(side);
  const index = Math.max(0, Math.min(count - 1, Math.round((mm - first) / step)));
  return first + index * step;
}

// Shows a slice of one side; the other side follows to where the middle of the view came from or went.
function setSlice(side, mm, { follow = true } = {}) {
  const n = PLANES[state.plane].n;
  const position = snap(side, mm);
  if (position !== state.slice[side]) state.cursor = null;
  state.slice[side] = position;
  if (!follow) return invalidate();
  const other = side === "source" ? "prediction" : "source";
  const middle = viewCentre(side);
  middle[n] = position;
  state.slice[other] = snap(other, state.follow ? partnerOf(loaded, side, middle).mm[n] : position);
  invalidate();
}

function viewCentre(side) {
  return loaded.grids[side].centre.map((v, d) => v + state.pan[d]);
}

function moveSlices(side, count) {
  setSlice(side, state.slice[side] + count * sidePlane(side).step);
}

function setPlane(plane) {
  if (loaded.dims === 2) return;
  const at = state.cursor || state.pins[state.selected];
  state.plane = plane;
  state.pan = [0, 0, 0];
  const n = PLANES[plane].n;
  for (const side of ["source", "prediction"]) state.slice[side] = snap(side, (at ? at[side] : loaded.grids[side].centre)[n]);
  state.gridStep = gridStep();
  state.cursor = null;
  invalidate();
}

function gridStep() {
  const { x, y } = PLANES[state.plane];
  const { lo, hi } = loaded.grids.source;
  return niceStep(Math.max(hi[x] - lo[x], hi[y] - lo[y]) / 18);
}

// The point under the mouse, or null; the other side's slice follows its partner.
function setCursor(side, mm) {
  const inside = mm && contains(loaded.grids[side], mm);
  state.cursor = inside ? partnerOf(loaded, side, mm) : null;
  if (state.cursor && loaded.dims === 3 && state.follow && state.cursor.inside) {
    const other = side === "source" ? "prediction" : "source";
    const position = snap(other, state.cursor.mm[PLANES[state.plane].n]);
    if (position !== state.slice[other]) {
      state.slice[other] = position;
      return invalidate();
    }
  }
  invalidate("marks");
}

function addPin(side, mm) {
  if (!contains(loaded.grids[side], mm)) return null;
  const used = state.pins.map((pin) => pin.number);
  let number = 1;
  while (used.includes(number)) number++;
  const pin = { ...partnerOf(loaded, side, mm), number, colour: PIN_COLOURS[(number - 1) % PIN_COLOURS.length] };
  state.pins.push(pin);
  selectPin(state.pins.length - 1, { jump: false });
  return pin;
}

function removePin(index) {
  state.pins.splice(index, 1);
  state.selected = state.pins.length ? Math.min(index, state.pins.length - 1) : null;
  invalidate("marks");
}

function selectPin(index, { jump = true } = {}) {
  state.selected = index;
  const pin = state.pins[index];
  const n = PLANES[state.plane].n;
  for (const side of ["source", "prediction"]) {
    if (jump || (side !== pin.side && pin.inside)) state.slice[side] = snap(side, pin[side][n]);
  }
  invalidate();
}

async function selectCase(index) {
  wanted = index;
  document.body.classList.add("loading");
  const next = await loadCase(PAGE.cases[index]);
  // Another case may have been asked for while this one was being unpacked.
  if (wanted !== index) return;
  // All cases of a sweep have one source: its points stay, and so does what is looked at.
  const along = Boolean(PAGE.sweep && loaded);
  loaded = next;
  state.caseIndex = index;
  state.cursor = null;
  if (along) {
    state.pins = state.pins.map(({ source, number, colour }) => ({ ...partnerOf(loaded, "source", source), number, colour }));
  } else {
    lookAnew();
  }
  resetWindows();
  const names = thirdChoices().map((choice) => choice.key);
  if (!names.includes(state.third)) state.third = names[0] ?? null;
  document.body.classList.remove("loading");
  showCase();
  invalidate();
}

function lookAnew() {
  state.pins = [];
  state.selected = null;
  state.zoom = 1;
  state.pan = [0, 0, 0];
  state.hidden = new Set();
  state.channel = Math.min(state.channel, loaded.channels - 1);
  if (loaded.dims === 2) state.plane = "axial";
  const n = PLANES[state.plane].n;
  for (const side of ["source", "prediction"]) state.slice[side] = snap(side, loaded.grids[side].centre[n]);
  state.gridStep = gridStep();
}

function resetWindows() {
  const open = ([low, high]) => ({ level: (low + high) / 2, width: high - low });
  state.windows = { source: open(loaded.windows.source), prediction: open(loaded.windows.prediction) };
  loaded.extras.forEach((extra, i) => (state.windows[`extra${i}`] = open(extra.window)));
}

function thirdChoices() {
  const choices = loaded.images.target ? [{ key: "target", name: sideName("target"), side: "prediction", group: "prediction", volume: loaded.images.target }] : [];
  loaded.extras.forEach((extra, i) => choices.push({ key: `extra${i}`, name: extra.name, side: extra.side, group: `extra${i}`, volume: extra.volume }));
  return choices;
}
