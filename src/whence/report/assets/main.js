// Starts the page, and names what a script may ask of it.

listen();

const ready = selectCase(0).catch((error) => {
  document.body.classList.add("failed");
  byId("failure").textContent = `This page could not be shown: ${error.message}. It needs a browser of 2023 or later.`;
  throw error;
});

window.whence = {
  ready,
  state,
  partner: ({ side, mm }) => partnerOf(loaded, side, mm),
  pin: ({ side, mm }) => addPin(side, mm),
  pinsAsCsv,
  select: selectCase,
  setPlane,
  setSlice,
  // Where a world point lies on the screen, in the page's pixels, on the slice now shown.
  toClient(name, mm) {
    const panel = panels[name];
    const box = panel.marks.getBoundingClientRect();
    const [x, y] = toScreen(viewOf(panel), mm);
    return [box.left + x, box.top + y];
  },
  toMillimetres(name, x, y) {
    return eventPoint(panels[name], { clientX: x, clientY: y });
  },
  drawn: () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))),
};
