// The two or three images: their views, drawing on demand, and the mouse.

const panels = {};
let pending = null;

for (const element of document.querySelectorAll(".panel")) {
  const name = element.dataset.panel;
  panels[name] = {
    name,
    element,
    box: element.querySelector(".view"),
    image: element.querySelector("canvas.image"),
    marks: element.querySelector("canvas.marks"),
    slider: element.querySelector(".slice input"),
  };
}

// What a panel shows: its side, the volume, the window it belongs to and which overlays lie on it.
function contentOf(name) {
  if (name !== "third") return { content: name, side: name, group: name, overlays: name };
  const choice = thirdChoices().find(({ key }) => key === state.third);
  return choice && { ...choice, content: choice.key, overlays: choice.side === "prediction" ? "target" : null };
}

function viewOf(panel) {
  const content = contentOf(panel.name);
  const width = Math.max(2, Math.floor(panel.box.clientWidth));
  const height = Math.max(2, Math.floor(panel.box.clientHeight));
  const { x, y } = PLANES[state.plane];
  const { source, prediction } = loaded.grids;
  const extent = (d) => Math.max(source.hi[d] - source.lo[d], prediction.hi[d] - prediction.lo[d]);
  // One scale for all panels, so that sizes compare; room at the edges for the letters.
  const mm = Math.max(extent(x) / (width - 44), extent(y) / (height - 44)) / state.zoom;
  return { plane: state.plane, centre: viewCentre(content.side), slice: state.slice[content.side], mm, width, height };
}

// Redraws at the next frame: everything, or only the marks.
function invalidate(what = "all") {
  if (pending === null) requestAnimationFrame(draw);
  if (pending !== "all") pending = what;
}

function draw() {
  const what = pending;
  pending = null;
  if (!loaded) return;
  for (const panel of Object.values(panels)) {
    const content = contentOf(panel.name);
    if (!content) continue;
    const view = viewOf(panel);
    if (what === "all") drawImage(panel.image, content, view, loaded, state);
    drawMarks(panel.marks, content, view, loaded, state);
    showSlider(panel, content);
  }
  showPoint();
  showPins();
  if (what === "all") showControls();
}

function showSlider(panel, content) {
  const { first, step, count } = sidePlane(content.side);
  panel.slider.max = count - 1;
  panel.slider.value = Math.round((state.slice[content.side] - first) / step);
}

function eventPoint(panel, event) {
  const box = panel.marks.getBoundingClientRect();
  return toWorld(viewOf(panel), event.clientX - box.left, event.clientY - box.top);
}

function changeWindow(group, dx, dy) {
  const window = state.windows[group];
  const initial = group.startsWith("extra") ? loaded.extras[Number(group.slice(5))].window : loaded.windows[group];
  const range = initial[1] - initial[0];
  window.width = Math.max(range / 100, window.width + (dx * range) / 300);
  window.level += (dy * range) / 300;
  invalidate();
}

function changeZoom(factor) {
  state.zoom = Math.max(1, Math.min(12, state.zoom * factor));
  if (state.zoom === 1) state.pan = [0, 0, 0];
  invalidate();
}

function panBy(view, dx, dy) {
  const { x, y } = PLANES[state.plane];
  state.pan[x] += dx * view.mm;
  state.pan[y] += dy * view.mm;
  invalidate();
}

function listenTo(panel) {
  let drag = null;
  const { marks } = panel;
  marks.addEventListener("contextmenu", (event) => event.preventDefault());
  marks.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, button: event.button, shift: event.shiftKey, moved: false };
    marks.setPointerCapture(event.pointerId);
  });
  marks.addEventListener("pointermove", (event) => {
    const content = contentOf(panel.name);
    if (!loaded || !content) return;
    if (drag) {
      const dx = event.clientX - drag.x;
      const dy = event.clientY - drag.y;
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      drag.moved = true;
      if (drag.button === 2) changeWindow(content.group, dx, dy);
      else if (state.zoom > 1) panBy(viewOf(panel), dx, dy);
      drag.x = event.clientX;
      drag.y = event.clientY;
      return;
    }
    setCursor(content.side, eventPoint(panel, event));
  });
  marks.addEventListener("pointerup", (event) => {
    const content = contentOf(panel.name);
    if (drag && !drag.moved && drag.button === 0 && loaded && content) addPin(content.side, eventPoint(panel, event));
    drag = null;
  });
  marks.addEventListener("pointercancel", () => (drag = null));
  marks.addEventListener("pointerleave", () => loaded && setCursor(contentOf(panel.name)?.side ?? "source", null));
  marks.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const content = contentOf(panel.name);
      if (!loaded || !content) return;
      if (loaded.dims === 2 || event.ctrlKey) changeZoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
      else moveSlices(content.side, event.deltaY < 0 ? 1 : -1);
    },
    { passive: false },
  );
  panel.slider.addEventListener("input", () => {
    const side = contentOf(panel.name).side;
    const { first, step } = sidePlane(side);
    setSlice(side, first + Number(panel.slider.value) * step);
  });
}

for (const panel of Object.values(panels)) {
  listenTo(panel);
  new ResizeObserver(() => invalidate()).observe(panel.box);
}
