// Along a sweep: how what the tables of its cases measure goes with the value that is swept, a curve for each column.

function sweptColumns() {
  const found = new Map();
  PAGE.cases.forEach(({ tables }, i) => {
    for (const { name, rows } of tables) {
      // What was asked for is no answer.
      if (name === "conditions") continue;
      for (const column of Object.keys(rows[0] ?? {})) {
        const values = rows.map((row) => row[column]);
        if (column === "draw" || !values.every((value) => typeof value === "number")) continue;
        const key = `${name}\n${column}`;
        if (!found.has(key)) found.set(key, { table: name, column, points: [] });
        found.get(key).points.push([PAGE.sweep.values[i], values.reduce((sum, value) => sum + value, 0) / values.length]);
      }
    }
  });
  return [...found.values()].filter(({ points }) => points.length === PAGE.cases.length && points.length > 1);
}

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function curve({ column, points }) {
  const [width, height, edge, foot] = [200, 74, 6, 16];
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (value) => edge + ((value - left) / (right - left)) * (width - 2 * edge);
  const y = (value) => height - foot - edge - ((value - low) / (high - low || 1)) * (height - foot - 2 * edge);
  const at = points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`);
  const now = points[state.caseIndex];
  const label = (value, place, anchor) => svg("text", { x: place, y: height - 4, "text-anchor": anchor }, short(value));
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${column} from ${number(low)} to ${number(high)} along ${PAGE.sweep.name}` },
    svg("polyline", { points: at.join(" ") }),
    ...points.map(([a, b], i) => svg("circle", { cx: x(a), cy: y(b), r: i === state.caseIndex ? 4 : 1.6, class: i === state.caseIndex ? "now" : "" })),
    label(left, edge, "start"),
    label(right, width - edge, "end"),
  );
  const caption = make("figcaption", {}, column, make("strong", {}, number(now[1])), make("span", { class: "unit" }, `${number(low)} to ${number(high)}`));
  return make("figure", { class: "curve" }, caption, picture);
}

function sweptTables() {
  if (!PAGE.sweep) return [];
  const columns = sweptColumns();
  const names = [...new Set(columns.map(({ table }) => table))];
  return names.map((name) => {
    const curves = columns.filter(({ table }) => table === name).map(curve);
    return make("div", { class: "swept" }, make("h2", {}, `${name} along ${PAGE.sweep.name}`), make("div", { class: "curves" }, ...curves));
  });
}
