// Where things are: affines, grids, planes and interpolation. World coordinates are RAS mm, all in
// double precision. A 2D grid arrives as one slice (n0, n1, 1) of a world whose third coordinate is 0.

// Screen x and y run against the world axes named here: patient right on the left of the screen,
// anterior (or superior) up, and anterior on the left of a sagittal slice.
const PLANES = {
  axial: { name: "Axial", x: 0, y: 1, n: 2, edges: ["R", "L", "A", "P"], normal: "S" },
  coronal: { name: "Coronal", x: 0, y: 2, n: 1, edges: ["R", "L", "S", "I"], normal: "A" },
  sagittal: { name: "Sagittal", x: 1, y: 2, n: 0, edges: ["A", "P", "S", "I"], normal: "R" },
};

// A 3x4 affine is a flat array of twelve numbers, row by row.
function applyAffine(m, p) {
  return [
    m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3],
    m[4] * p[0] + m[5] * p[1] + m[6] * p[2] + m[7],
    m[8] * p[0] + m[9] * p[1] + m[10] * p[2] + m[11],
  ];
}

function invertAffine(m) {
  const [a, b, c, t, d, e, f, u, g, h, i, v] = m;
  const A = e * i - f * h;
  const B = f * g - d * i;
  const C = d * h - e * g;
  const det = a * A + b * B + c * C;
  const r = [A, c * h - b * i, b * f - c * e, B, a * i - c * g, c * d - a * f, C, b * g - a * h, a * e - b * d];
  const q = r.map((value) => value / det);
  return [
    q[0], q[1], q[2], -(q[0] * t + q[1] * u + q[2] * v),
    q[3], q[4], q[5], -(q[3] * t + q[4] * u + q[5] * v),
    q[6], q[7], q[8], -(q[6] * t + q[7] * u + q[8] * v),
  ];
}

function makeGrid(shape, affine) {
  const inverse = invertAffine(affine);
  const spacing = [0, 1, 2].map((d) => Math.hypot(affine[d], affine[4 + d], affine[8 + d]));
  const extent = (margin) => {
    const lo = [Infinity, Infinity, Infinity];
    const hi = [-Infinity, -Infinity, -Infinity];
    for (let corner = 0; corner < 8; corner++) {
      const voxel = [0, 1, 2].map((d) => ((corner >> d) & 1 ? shape[d] - 1 + margin : -margin));
      applyAffine(affine, voxel).forEach((value, d) => {
        lo[d] = Math.min(lo[d], value);
        hi[d] = Math.max(hi[d], value);
      });
    }
    return { lo, hi };
  };
  const { lo, hi } = extent(0.5);
  return { shape, affine, inverse, spacing, lo, hi, centres: extent(0), centre: lo.map((v, d) => (v + hi[d]) / 2) };
}

// Inside means at most half a voxel beyond the outer voxel centres.
function contains(grid, p) {
  return applyAffine(grid.inverse, p).every((v, d) => v >= -0.5 - 1e-9 && v <= grid.shape[d] - 0.5 + 1e-9);
}

// The slices of a grid across a world axis: first position, step (mm) and count.
function slicesAlong(grid, axis) {
  let best = 0;
  for (let d = 1; d < 3; d++) {
    const share = (k) => Math.abs(grid.affine[4 * axis + k]) / grid.spacing[k];
    if (share(d) > share(best)) best = d;
  }
  const step = grid.spacing[best];
  const length = grid.centres.hi[axis] - grid.centres.lo[axis];
  const count = Math.max(1, Math.round(length / step) + 1);
  return { first: grid.centres.lo[axis] + (length - (count - 1) * step) / 2, step, count };
}

// One lower corner and weight of linear interpolation along an axis, border repeated.
function clampIndex(value, n) {
  return value <= 0 ? 0 : value >= n - 1 ? n - 1 : value;
}

// Linear interpolation of one channel at a voxel coordinate, voxel-centre aligned, border repeated.
function sampleLinear(volume, channel, voxel) {
  const [n0, n1, n2] = volume.grid.shape;
  const a = clampIndex(voxel[0], n0);
  const b = clampIndex(voxel[1], n1);
  const c = clampIndex(voxel[2], n2);
  const i = Math.floor(a);
  const j = Math.floor(b);
  const k = Math.floor(c);
  const di = i + 1 < n0 ? n1 * n2 : 0;
  const dj = j + 1 < n1 ? n2 : 0;
  const dk = k + 1 < n2 ? 1 : 0;
  const o = ((channel * n0 + i) * n1 + j) * n2 + k;
  const v = volume.data;
  const x = a - i;
  const y = b - j;
  const z = c - k;
  const low = (v[o] * (1 - z) + v[o + dk] * z) * (1 - y) + (v[o + dj] * (1 - z) + v[o + dj + dk] * z) * y;
  const p = o + di;
  const high = (v[p] * (1 - z) + v[p + dk] * z) * (1 - y) + (v[p + dj] * (1 - z) + v[p + dj + dk] * z) * y;
  return (low * (1 - x) + high * x) * volume.scale + volume.offset;
}

function valueAt(volume, channel, p) {
  return sampleLinear(volume, channel, applyAffine(volume.grid.inverse, p));
}

// phi(p) = p + u(p): u is stored in RAS mm, so that no other conversion stands between.
function movePoint(field, p) {
  const voxel = applyAffine(field.grid.inverse, p);
  return [0, 1, 2].map((d) => p[d] + (d < field.channels ? sampleLinear(field, d, voxel) : 0));
}

function distance(p, q) {
  return Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
}

// A view is a plane of the world on a rectangle of pixels: {plane, centre, slice, mm, width, height},
// mm being the size of one pixel.
function toWorld(view, x, y) {
  const { x: ax, y: ay, n } = PLANES[view.plane];
  const p = [0, 0, 0];
  p[ax] = view.centre[ax] - (x - view.width / 2) * view.mm;
  p[ay] = view.centre[ay] - (y - view.height / 2) * view.mm;
  p[n] = view.slice;
  return p;
}

function toScreen(view, p) {
  const { x: ax, y: ay } = PLANES[view.plane];
  return [view.width / 2 - (p[ax] - view.centre[ax]) / view.mm, view.height / 2 - (p[ay] - view.centre[ay]) / view.mm];
}

// Calls visit(pixel, a, b, c) with the voxel coordinates, in a grid, of every pixel centre inside it.
function scan(grid, view, visit) {
  const { x: ax, y: ay } = PLANES[view.plane];
  const m = grid.inverse;
  const [n0, n1, n2] = grid.shape;
  const dx = [-m[ax] * view.mm, -m[4 + ax] * view.mm, -m[8 + ax] * view.mm];
  const dy = [-m[ay] * view.mm, -m[4 + ay] * view.mm, -m[8 + ay] * view.mm];
  const start = applyAffine(m, toWorld(view, 0.5, 0.5));
  // A pixel whose centre is a rounding error beyond the edge still belongs to the image.
  const e = 0.5 + 1e-9;
  let pixel = 0;
  for (let row = 0; row < view.height; row++) {
    const a0 = start[0] + row * dy[0];
    const b0 = start[1] + row * dy[1];
    const c0 = start[2] + row * dy[2];
    for (let column = 0; column < view.width; column++, pixel++) {
      const a = a0 + column * dx[0];
      const b = b0 + column * dx[1];
      const c = c0 + column * dx[2];
      if (a < -e || b < -e || c < -e || a > n0 - 1 + e || b > n1 - 1 + e || c > n2 - 1 + e) continue;
      visit(pixel, a, b, c);
    }
  }
}

function niceStep(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  const lead = length / power;
  return (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10) * power;
}
