// Switches, sliders and keys.

function gradient(name) {
  return `linear-gradient(90deg, ${PAGE.colours[name].filter((_, i) => i % 8 === 0).map((c) => `rgb(${c.join(",")})`).join(", ")})`;
}

function legendOf(key) {
  const bar = (name, low, high) => [make("span", {}, low), make("span", { class: "bar", style: `background:${gradient(name)}` }), make("span", {}, high)];
  const top = loaded.jacobian_max;
  if (key === "grid" || key === "arrows") return [];
  if (key === "magnitude") return bar("magnitude", "0", `${loaded.moved_mm.toFixed(1)} mm in the body`);
  if (key === "jacobian") return bar("jacobian", `grew \u00d7${Math.exp(top).toFixed(1)}`, `shrank \u00d7${Math.exp(-top).toFixed(1)}`);
  if (key === "novelty") return bar("novelty", "0", "1");
  if (!loaded.labels.length) return [make("span", {}, "none in this trace")];
  return loaded.labels.map((label, i) => {
    const toggle = () => {
      if (!state.hidden.delete(i + 1)) state.hidden.add(i + 1);
      showLegends();
      invalidate();
    };
    const attributes = { class: "chip", "aria-pressed": String(!state.hidden.has(i + 1)), style: `--dot:rgb(${label.rgb.join(",")})`, onclick: toggle };
    return make("button", attributes, label.name);
  });
}

function showLegends() {
  for (const { key } of OVERLAYS) byId(`legend-${key}`).replaceChildren(...legendOf(key));
}

function buildOverlays() {
  OVERLAYS.forEach(({ key, name, hint }, i) => {
    const box = make("input", { type: "checkbox", id: `overlay-${key}`, onchange: (e) => setOverlay(key, e.target.checked) });
    const slider = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.overlays[key].opacity, "aria-label": `Opacity of ${name}` });
    slider.addEventListener("input", () => {
      state.overlays[key].opacity = Number(slider.value);
      invalidate();
    });
    const label = make("label", { for: `overlay-${key}`, title: hint }, make("kbd", {}, String(i + 1)), name);
    if (key === "grid") label.append(make("span", { class: "unit", id: "grid-step" }));
    byId("overlays").append(make("div", { class: "overlay", "data-overlay": key }, box, label, slider, make("div", { class: "legend", id: `legend-${key}` })));
  });
}

function setOverlay(key, on) {
  if (key === "labels" && !loaded.images.labels) on = false;
  state.overlays[key].on = on;
  invalidate();
}

function showCase() {
  document.body.classList.toggle("flat", loaded.dims === 2);
  const choices = thirdChoices();
  document.body.classList.toggle("two", choices.length === 0);
  byId("third").replaceChildren(...choices.map(({ key, name }) => make("option", { value: key }, name)));
  byId("third").disabled = choices.length < 2;
  byId("case").value = String(state.caseIndex);
  if (PAGE.sweep) {
    byId("sweep").value = String(state.caseIndex);
    byId("swept").textContent = String(Math.round(100 * PAGE.sweep.values[state.caseIndex]) / 100);
  }
  const kinds = { recovered: "field recovered by registration", registered: "two images registered", compared: "two images compared" };
  byId("kind").textContent = kinds[loaded.kind] || "field predicted by the model";
  for (const place of document.querySelectorAll("[data-name]")) {
    const name = sideName(place.dataset.name);
    place.textContent = "small" in place.dataset ? name.toLowerCase() : name;
  }
  byId("kind").dataset.kind = loaded.kind;
  byId("method").textContent = loaded.method || PAGE.method;
  byId("method").hidden = !byId("method").textContent;
  byId("channels").hidden = loaded.channels < 2;
  byId("channel").replaceChildren(...Array.from({ length: loaded.channels }, (_, i) => make("option", { value: i }, `channel ${i + 1}`)));
  byId("channel").value = String(state.channel);
  const box = byId("overlay-labels");
  box.disabled = !loaded.images.labels;
  showMetrics();
  showNotes();
}

function showControls() {
  for (const { key } of OVERLAYS) {
    byId(`overlay-${key}`).checked = state.overlays[key].on && !byId(`overlay-${key}`).disabled;
    byId(`overlay-${key}`).parentElement.classList.toggle("on", byId(`overlay-${key}`).checked);
  }
  for (const button of document.querySelectorAll("[data-plane]")) button.setAttribute("aria-pressed", String(button.dataset.plane === state.plane));
  for (const button of document.querySelectorAll("[data-frame]")) button.setAttribute("aria-pressed", String(button.dataset.frame === state.frame));
  for (const shown of document.querySelectorAll(".frame-name")) shown.textContent = state.frame;
  byId("third").value = state.third ?? "";
  byId("grid-step").textContent = ` ${state.gridStep} mm`;
  byId("blend").value = String(state.blend);
  byId("shown").textContent = blendName(state.blend);
  const { source, prediction } = state.windows;
  const share = (window, [low, high]) => ({ level: (window.level - low) / (high - low), width: window.width / (high - low) });
  const now = share(prediction, loaded.windows.prediction);
  byId("level").value = String(now.level);
  byId("width").value = String(now.width);
  byId("level-value").textContent = `${short(source.level)} | ${short(prediction.level)}`;
  byId("width-value").textContent = `${short(source.width)} | ${short(prediction.width)}`;
  showLegends();
}

function blendName(blend) {
  const [source, prediction] = [sideName("source"), sideName("prediction")];
  if (blend >= 2) return prediction;
  if (blend <= 0) return source;
  const warped = `Warped ${source.toLowerCase()}`;
  if (blend === 1) return warped;
  return blend < 1 ? `${source}, ${warped.toLowerCase()}` : `${warped}, ${prediction.toLowerCase()}`;
}

function setWindows(level, width) {
  for (const group of ["source", "prediction"]) {
    const [low, high] = loaded.windows[group];
    state.windows[group] = { level: low + level * (high - low), width: Math.max(0.01, width) * (high - low) };
  }
  invalidate();
}

function step(count) {
  const next = (wanted ?? 0) + count;
  if (next >= 0 && next < PAGE.cases.length) return selectCase(next);
}

const KEYS = {
  ArrowUp: () => moveSlices("prediction", 1),
  ArrowRight: () => moveSlices("prediction", 1),
  ArrowDown: () => moveSlices("prediction", -1),
  ArrowLeft: () => moveSlices("prediction", -1),
  "[": () => step(-1),
  "]": () => step(1),
  a: () => setPlane("axial"),
  c: () => setPlane("coronal"),
  s: () => setPlane("sagittal"),
  r: () => resetView(),
  "+": () => changeZoom(1.25),
  "=": () => changeZoom(1.25),
  "-": () => changeZoom(0.8),
  Delete: () => state.pins.length && removePin(state.selected ?? state.pins.length - 1),
  "?": () => toggleHelp(),
  Escape: () => byId("help").close(),
};

function toggleHelp() {
  if (byId("help").open) byId("help").close();
  else byId("help").showModal();
}

function resetView() {
  state.zoom = 1;
  state.pan = [0, 0, 0];
  state.blend = 2;
  resetWindows();
  invalidate();
}

function onKey(event) {
  if (!loaded || event.ctrlKey || event.metaKey || event.altKey) return;
  const tag = event.target.tagName;
  if (tag === "SELECT" || (tag === "INPUT" && event.target.type === "range" && event.key.startsWith("Arrow"))) return;
  const overlay = OVERLAYS[Number(event.key) - 1];
  if (overlay) setOverlay(overlay.key, !state.overlays[overlay.key].on);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

function listen() {
  buildOverlays();
  byId("case").addEventListener("change", (e) => selectCase(Number(e.target.value)));
  if (PAGE.sweep) byId("sweep").addEventListener("input", (e) => selectCase(Number(e.target.value)));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("third").addEventListener("change", (e) => ((state.third = e.target.value), invalidate()));
  byId("channel").addEventListener("change", (e) => ((state.channel = Number(e.target.value)), invalidate()));
  byId("follow").addEventListener("change", (e) => (state.follow = e.target.checked));
  byId("blend").addEventListener("input", (e) => ((state.blend = Number(e.target.value)), invalidate()));
  byId("level").addEventListener("input", (e) => setWindows(Number(e.target.value), Number(byId("width").value)));
  byId("width").addEventListener("input", (e) => setWindows(Number(byId("level").value), Number(e.target.value)));
  byId("reset").addEventListener("click", resetView);
  byId("clear").addEventListener("click", () => ((state.pins = []), (state.selected = null), invalidate("marks")));
  byId("save").addEventListener("click", () => download(`${loaded.name.replace(/[^\w.-]+/g, "_")}-points.csv`, pinsAsCsv()));
  byId("help-open").addEventListener("click", toggleHelp);
  byId("help-close").addEventListener("click", toggleHelp);
  for (const button of document.querySelectorAll("[data-plane]")) button.addEventListener("click", () => setPlane(button.dataset.plane));
  for (const button of document.querySelectorAll("[data-frame]")) button.addEventListener("click", () => ((state.frame = button.dataset.frame), invalidate()));
  for (const button of document.querySelectorAll("[data-blend]")) button.addEventListener("click", () => ((state.blend = Number(button.dataset.blend)), invalidate()));
  document.addEventListener("keydown", onKey);
}
