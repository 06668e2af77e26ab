// From volumes to pixels: grey images through a window, and the overlays that colour them.

function ramp(name, share) {
  const table = PAGE.colours[name];
  return table[Math.max(0, Math.min(table.length - 1, Math.round(share * (table.length - 1))))];
}

// A slice of one channel, NaN outside the image.
function slice(volume, channel, view) {
  const out = new Float32Array(view.width * view.height).fill(NaN);
  const last = Math.min(channel, volume.channels - 1);
  const voxel = [0, 0, 0];
  scan(volume.grid, view, (pixel, a, b, c) => {
    voxel[0] = a;
    voxel[1] = b;
    voxel[2] = c;
    out[pixel] = sampleLinear(volume, last, voxel);
  });
  return out;
}

// Indices of the nearest labels, 0 outside.
function sliceLabels(volume, view) {
  const out = new Uint16Array(view.width * view.height);
  const [, n1, n2] = volume.grid.shape;
  const top = volume.grid.shape.map((n) => n - 1);
  const near = (value, d) => Math.max(0, Math.min(top[d], Math.round(value)));
  scan(volume.grid, view, (pixel, a, b, c) => {
    out[pixel] = volume.data[(near(a, 0) * n1 + near(b, 1)) * n2 + near(c, 2)];
  });
  return out;
}

// The in-plane source coordinates of every pixel (or, without a field, its own), and how far it moved.
function sliceMap(grid, field, view) {
  const size = view.width * view.height;
  const { x: ax, y: ay } = PLANES[view.plane];
  const map = { u: new Float32Array(size).fill(NaN), v: new Float32Array(size).fill(NaN), moved: new Float32Array(size).fill(NaN) };
  scan(grid, view, (pixel) => {
    const p = toWorld(view, (pixel % view.width) + 0.5, Math.floor(pixel / view.width) + 0.5);
    const q = field ? movePoint(field, p) : p;
    map.u[pixel] = q[ax];
    map.v[pixel] = q[ay];
    map.moved[pixel] = distance(p, q);
  });
  return map;
}

// Grey levels 0..255 of a slice through a window, NaN kept.
function greys(values, window) {
  const gain = 255 / Math.max(window.width, 1e-12);
  const low = window.level - window.width / 2;
  return values.map((value) => Math.max(0, Math.min(255, (value - low) * gain)));
}

function mix(first, second, share) {
  return first.map((value, i) => (Number.isNaN(value) ? second[i] * share : Number.isNaN(second[i]) ? value * (1 - share) : value + (second[i] - value) * share));
}

function paintGrey(pixels, values) {
  for (let i = 0; i < values.length; i++) {
    const inside = !Number.isNaN(values[i]);
    pixels[4 * i] = pixels[4 * i + 1] = pixels[4 * i + 2] = inside ? values[i] : 0;
    pixels[4 * i + 3] = inside ? 255 : 0;
  }
}

function tint(pixels, i, colour, alpha) {
  for (let c = 0; c < 3; c++) pixels[4 * i + c] += (colour[c] - pixels[4 * i + c]) * alpha;
}

// A scalar overlay: colour(value) and strength(value) in 0..1, nothing where the image is not.
function paintScalar(pixels, values, colour, strength, opacity, within = null) {
  for (let i = 0; i < values.length; i++) {
    const share = within ? within[i] : 1;
    if (Number.isNaN(values[i]) || !(share > 0) || pixels[4 * i + 3] === 0) continue;
    tint(pixels, i, colour(values[i]), strength(values[i]) * share * opacity);
  }
}

// Labels filled, with a stronger line where one meets another.
function paintLabels(pixels, indices, legend, hidden, width, opacity) {
  for (let i = 0; i < indices.length; i++) {
    const label = indices[i];
    if (label === 0 || hidden.has(label) || pixels[4 * i + 3] === 0) continue;
    const edge = indices[i - 1] !== label || indices[i + 1] !== label || indices[i - width] !== label || indices[i + width] !== label;
    tint(pixels, i, legend[label - 1].rgb, edge ? Math.min(1, opacity * 1.6) : opacity * 0.6);
  }
}

// Lines of a regular grid of the source, seen through the map: where u or v is a multiple of the step.
function paintGrid(pixels, map, step, colour, width, opacity) {
  const line = (values, i) => {
    const across = Math.abs((values[i + 1] ?? NaN) - values[i]) || 0;
    const down = Math.abs((values[i + width] ?? NaN) - values[i]) || 0;
    const slope = Math.hypot(across, down);
    if (!(slope > 0)) return 0;
    const away = Math.abs(values[i] - Math.round(values[i] / step) * step) / slope;
    return Math.max(0, Math.min(1, 1.1 - away));
  };
  for (let i = 0; i < map.u.length; i++) {
    if (Number.isNaN(map.u[i]) || pixels[4 * i + 3] === 0) continue;
    const alpha = Math.max(line(map.u, i), line(map.v, i));
    if (alpha > 0) tint(pixels, i, colour, alpha * opacity);
  }
}

const GRID_COLOUR = [94, 214, 224];

const JACOBIAN_FOLDED = [255, 0, 255];

// The overlays of one panel, in the order in which they lie on each other.
function paintOverlays(pixels, view, side, loaded, state) {
  if (side === "target") return paintLabelsOf(pixels, view, side, loaded, state);
  const on = (name) => state.overlays[name].on;
  const opacity = (name) => state.overlays[name].opacity;
  const field = loaded.images[side === "source" ? "inverse" : "displacement"];
  const grid = loaded.grids[side];
  // Where the air moved is of no interest; novelty counts everywhere.
  const body = on("magnitude") || on("jacobian") ? slice(loaded.images[`${side}_body`], 0, view) : null;
  if (on("magnitude")) {
    const top = loaded.moved_mm;
    const colour = (v) => ramp("magnitude", v / top);
    paintScalar(pixels, sliceMap(grid, field, view).moved, colour, (v) => Math.min(1, (10 * v) / top), opacity("magnitude"), body);
  }
  if (side === "prediction") {
    const { jacobian, novelty } = loaded.images;
    if (on("jacobian")) {
      const top = loaded.jacobian_max;
      const colour = (v) => (v < -1.02 * top ? JACOBIAN_FOLDED : ramp("jacobian", 0.5 + (0.5 * v) / top));
      paintScalar(pixels, slice(jacobian, 0, view), colour, (v) => Math.min(1, (6 * Math.abs(v)) / top), opacity("jacobian"), body);
    }
    if (on("novelty")) {
      paintScalar(pixels, slice(novelty, 0, view), (v) => ramp("novelty", v), (v) => Math.min(1, 1.6 * v), opacity("novelty"));
    }
  }
  paintLabelsOf(pixels, view, side, loaded, state);
  if (on("grid")) {
    const map = sliceMap(grid, side === "source" ? null : field, view);
    paintGrid(pixels, map, state.gridStep, GRID_COLOUR, view.width, opacity("grid"));
  }
}

// Carried labels lie on the prediction, and on the target, to be judged by.
function paintLabelsOf(pixels, view, side, loaded, state) {
  const { labels } = loaded.images;
  const { on, opacity } = state.overlays.labels;
  if (!labels || !on || side === "source") return;
  paintLabels(pixels, sliceLabels(labels, view), loaded.labels, state.hidden, view.width, opacity);
}

// The grey image of a panel: source, blend of source, warped source and prediction, or another image.
function baseOf(panel, view, loaded, state) {
  const grey = (volume, group) => greys(slice(volume, state.channel, view), state.windows[group]);
  const { source, warped_source: warped, prediction } = loaded.images;
  if (panel.content === "source") return grey(source, "source");
  if (panel.content !== "prediction") return grey(panel.volume, panel.group);
  if (state.blend >= 2) return grey(prediction, "prediction");
  if (state.blend > 1) return mix(grey(warped, "source"), grey(prediction, "prediction"), state.blend - 1);
  if (state.blend === 1) return grey(warped, "source");
  return mix(grey(source, "source"), grey(warped, "source"), state.blend);
}

function drawImage(canvas, panel, view, loaded, state) {
  canvas.width = view.width;
  canvas.height = view.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(view.width, view.height);
  paintGrey(image.data, baseOf(panel, view, loaded, state));
  if (panel.overlays) paintOverlays(image.data, view, panel.overlays, loaded, state);
  context.putImageData(image, 0, 0);
}
