// What is drawn over an image: orientation letters, the scale bar, arrows, pins and the cursor.

const INK = "rgba(214, 226, 238, 0.85)";
const SHADOW = "rgba(0, 0, 0, 0.75)";
const WARNING = "#ffb454";
const CURSOR = "#7fe3ff";
const PIN_COLOURS = ["#ffd166", "#7bd88f", "#ff8fa3", "#82b1ff", "#d7a6ff", "#ffb374", "#5fe0c8", "#f4f1a0"];

function write(context, text, x, y, { align = "left", size = 12, colour = INK, weight = 500 } = {}) {
  context.font = `${weight} ${size}px ${FONT}`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 3;
  context.strokeStyle = SHADOW;
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// Every line twice, dark below and coloured above, so that it is seen on any grey.
function stroke(context, colour, width, path) {
  for (const [style, extra] of [[SHADOW, 2], [colour, 0]]) {
    context.strokeStyle = style;
    context.lineWidth = width + extra;
    context.beginPath();
    path(context);
    context.stroke();
  }
}

function drawFrame(context, view, oriented, corners) {
  const { width, height } = view;
  write(context, corners.place, 12, 16, { size: 12 });
  write(context, corners.window, width - 12, height - 16, { size: 11, align: "right" });
  if (oriented) {
    const [left, right, top, bottom] = PLANES[view.plane].edges;
    const style = { align: "center", size: 14, weight: 700 };
    write(context, left, 13, height / 2, style);
    write(context, right, width - 13, height / 2, style);
    write(context, top, width / 2, 14, style);
    write(context, bottom, width / 2, height - 13, style);
  }
  const length = niceStep(Math.min(120, width * 0.2) * view.mm);
  const pixels = length / view.mm;
  const y = height - 14;
  const x = 14;
  stroke(context, INK, 2, (c) => {
    c.moveTo(x, y - 4);
    c.lineTo(x, y);
    c.lineTo(x + pixels, y);
    c.lineTo(x + pixels, y - 4);
  });
  write(context, `${length} mm`, x + pixels / 2, y - 12, { align: "center", size: 11 });
}

function arrowPath(context, from, to, head) {
  const angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
  context.moveTo(from[0], from[1]);
  context.lineTo(to[0], to[1]);
  for (const turn of [2.6, -2.6]) {
    context.moveTo(to[0], to[1]);
    context.lineTo(to[0] + head * Math.cos(angle + turn), to[1] + head * Math.sin(angle + turn));
  }
}

// Arrows from source to prediction, on points of the world that stay where they are as the view moves.
function drawArrows(context, view, side, loaded, opacity) {
  const { x: ax, y: ay, n } = PLANES[view.plane];
  const field = loaded.images[side === "source" ? "inverse" : "displacement"];
  const grid = loaded.grids[side];
  const body = loaded.images[`${side}_body`];
  const step = 22 * view.mm;
  context.save();
  context.globalAlpha = opacity;
  context.lineCap = "round";
  for (let u = Math.ceil(grid.lo[ax] / step) * step; u <= grid.hi[ax]; u += step) {
    for (let v = Math.ceil(grid.lo[ay] / step) * step; v <= grid.hi[ay]; v += step) {
      const p = [0, 0, 0];
      p[ax] = u;
      p[ay] = v;
      p[n] = view.slice;
      if (!contains(grid, p) || valueAt(body, 0, p) < 0.5) continue;
      const q = movePoint(field, p);
      const [from, to] = (side === "source" ? [p, q] : [q, p]).map((point) => toScreen(view, point));
      const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
      if (length < 0.7) continue;
      const share = Math.min(1, distance(p, q) / loaded.moved_mm);
      const colour = `rgb(255, ${Math.round(235 - 95 * share)}, ${Math.round(170 - 120 * share)})`;
      stroke(context, colour, 1.3, (c) => arrowPath(c, from, to, Math.min(5, 1.5 + length / 3)));
    }
  }
  context.restore();
}

function dot(context, at, radius, colour) {
  for (const [style, extra] of [[SHADOW, 1], [colour, 0]]) {
    context.fillStyle = style;
    context.beginPath();
    context.arc(at[0], at[1], radius + extra, 0, 2 * Math.PI);
    context.fill();
  }
}

// How plainly a point shows on a slice: 1 on it, faint some slices away, then not at all.
function presence(view, p, step) {
  const away = Math.abs(p[PLANES[view.plane].n] - view.slice) / step;
  return away <= 0.75 ? 1 : away <= 3 ? 0.35 : 0;
}

// A pair of points on one image: a ring at its own one, a dot at the other's place, an arrow from the
// source's to the prediction's.
function drawPair(context, view, side, pair, step, { colour, label = "", strong = false, cross = false }) {
  const isPartner = side !== pair.side;
  if (isPartner && !pair.inside) return;
  const shown = presence(view, pair[side], step);
  if (shown === 0) return;
  const own = toScreen(view, pair[side]);
  const other = toScreen(view, pair[side === "source" ? "prediction" : "source"]);
  const doubtful = pair.novelty !== null && pair.novelty > NOVEL;
  context.save();
  context.globalAlpha = shown;
  const [from, to] = side === "source" ? [own, other] : [other, own];
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  if (cross) {
    context.save();
    context.globalAlpha = 0.55 * shown;
    stroke(context, colour, 1, (c) => {
      const gap = 9;
      c.moveTo(0, own[1]);
      c.lineTo(own[0] - gap, own[1]);
      c.moveTo(own[0] + gap, own[1]);
      c.lineTo(view.width, own[1]);
      c.moveTo(own[0], 0);
      c.lineTo(own[0], own[1] - gap);
      c.moveTo(own[0], own[1] + gap);
      c.lineTo(own[0], view.height);
    });
    context.restore();
  }
  if (doubtful) context.setLineDash([4, 3]);
  if (length > 2) {
    stroke(context, colour, strong ? 2 : 1.5, (c) => arrowPath(c, from, to, Math.min(8, 3 + length / 4)));
    context.setLineDash([]);
    dot(context, other, 2.4, colour);
  }
  context.setLineDash(doubtful ? [3, 2] : []);
  stroke(context, colour, strong ? 2.5 : 1.8, (c) => c.arc(own[0], own[1], strong ? 7 : 5.5, 0, 2 * Math.PI));
  context.setLineDash([]);
  dot(context, own, 1.6, colour);
  if (label) write(context, label, own[0] + 11, own[1] - 10, { size: 12, weight: 700, colour });
  if (doubtful && (strong || cross)) {
    // Beneath the point, yet never beyond the edge of the image.
    const text = noveltyWarning(pair.novelty);
    context.font = `600 12px ${FONT}`;
    const half = context.measureText(text).width / 2 + 6;
    const x = Math.max(half, Math.min(view.width - half, own[0]));
    write(context, text, x, own[1] + (own[1] > view.height - 60 ? -20 : 20), { align: "center", colour: WARNING, weight: 600 });
  }
  context.restore();
}

function noveltyWarning(novelty) {
  return `little or no source: novelty ${novelty.toFixed(2)}`;
}

function drawMarks(canvas, panel, view, loaded, state) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(view.width * ratio);
  canvas.height = Math.round(view.height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const { on, opacity } = state.overlays.arrows;
  if (on && (panel.content === "source" || panel.content === "prediction")) drawArrows(context, view, panel.side, loaded, opacity);
  const { name, normal, n } = PLANES[view.plane];
  const { first, step, count } = slicesAlong(loaded.grids[panel.side], n);
  const { level, width } = state.windows[panel.group];
  drawFrame(context, view, loaded.dims === 3 || loaded.plane === "axial", {
    place: loaded.dims === 3 ? `${name}  ${normal} ${signed(view.slice)} mm   ${Math.round((view.slice - first) / step) + 1}/${count}` : "",
    window: `W ${short(width)}  L ${short(level)}`,
  });
  state.pins.forEach((pin, i) => {
    const strong = i === state.selected;
    drawPair(context, view, panel.side, pin, step, { colour: pin.colour, label: String(pin.number), strong });
  });
  if (state.cursor) {
    const mine = state.cursor.side === panel.side;
    drawPair(context, view, panel.side, state.cursor, step, { colour: CURSOR, cross: !mine });
    if (!mine && !state.cursor.inside) {
      write(context, `partner outside the ${panel.side}'s field of view`, view.width / 2, view.height - 34, {
        align: "center",
        colour: WARNING,
        weight: 600,
      });
    }
  }
}
