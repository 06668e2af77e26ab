// From the page's text blocks to typed arrays: base64, gzip, and for 16 bits differences in byte planes.

async function inflate(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// "u1": plain bytes. "u2", "i2": high bytes then low bytes of the differences of neighbours, modulo 2^16.
function decode(bytes, encoding) {
  if (encoding === "u1") return bytes;
  const n = bytes.length / 2;
  const out = encoding === "i2" ? new Int16Array(n) : new Uint16Array(n);
  let value = 0;
  for (let i = 0; i < n; i++) {
    value = (value + (bytes[i] << 8) + bytes[n + i]) & 0xffff;
    out[i] = value;
  }
  return out;
}

async function loadVolume(entry) {
  const data = decode(await inflate(entry.block), entry.encoding);
  return {
    ...entry,
    data,
    grid: makeGrid(entry.shape, entry.affine),
    scale: entry.scale,
    offset: entry.offset,
    channels: entry.channels,
  };
}

// A case with everything decoded; the grids of its fields may be coarser than its images.
async function loadCase(entry) {
  const loaded = { ...entry, images: {}, extras: [] };
  for (const name of Object.keys(entry.images)) loaded.images[name] = await loadVolume(entry.images[name]);
  for (const extra of entry.extras) loaded.extras.push({ ...extra, volume: await loadVolume(extra.volume) });
  loaded.grids = {
    source: makeGrid(entry.grids.source.shape, entry.grids.source.affine),
    prediction: makeGrid(entry.grids.prediction.shape, entry.grids.prediction.affine),
  };
  return loaded;
}

// The partner of a point (RAS mm) of either side, by the trace's own two fields.
function partnerOf(loaded, side, mm) {
  const p = [mm[0], mm[1], mm.length > 2 ? mm[2] : 0];
  const forward = side === "prediction";
  const partner = movePoint(loaded.images[forward ? "displacement" : "inverse"], p);
  const source = forward ? partner : p;
  const prediction = forward ? p : partner;
  const other = forward ? "source" : "prediction";
  return {
    side,
    source,
    prediction,
    mm: partner,
    moved: distance(source, prediction),
    inside: contains(loaded.grids[other], partner),
    novelty: contains(loaded.grids.prediction, prediction) ? valueAt(loaded.images.novelty, 0, prediction) : null,
  };
}
