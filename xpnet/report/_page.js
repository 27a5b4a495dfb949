// The behaviour of a report page: theme, sortable tables, line charts. No library, no network.
(() => {
"use strict";
const all = (query, from = document) => [...from.querySelectorAll(query)];
const make = (name, properties) => Object.assign(document.createElement(name), properties);

// ---- Theme: the system's, until the reader chooses
const root = document.documentElement, toggle = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const nameToggle = () => { toggle.textContent = isDark() ? "☀ Light" : "☾ Dark"; };
toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameToggle(); });
system.addEventListener("change", nameToggle);
toggle.hidden = false;
nameToggle();

// ---- Tables: numbers before words before empty cells; a second click turns the order
const number = (cell) => Number((cell.dataset.sort ?? "nan").replace("inf", "Infinity"));
const isEmpty = (cell) => cell.classList.contains("none") || cell.dataset.sort === "nan";
const rank = (cell) => (isEmpty(cell) ? 2 : cell.dataset.sort === undefined ? 1 : 0);
function compare(a, b) {
  if (rank(a) === 2) return 0;
  if (rank(a) === 0) return Math.sign(number(a) - number(b)) || 0;
  return a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
}
for (const table of all("table")) {
  const heads = all("th", table), body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((r, s) => {
      const a = r.cells[column], b = s.cells[column];
      return rank(a) - rank(b) || sign * compare(a, b);
    }));
  }));
}

// ---- Pictures: shrunk to the page, at full size when asked for
for (const figure of all("figure:not(.chart)")) {
  const image = figure.querySelector("img"), button = figure.querySelector(".size");
  const measure = () => {
    const full = figure.classList.contains("full"), shrunk = image.width < image.naturalWidth - 1;
    figure.classList.toggle("shrunk", shrunk);
    button.hidden = !shrunk && !full;
    button.textContent = full ? "Fit to the page" : "Full size";
  };
  const turn = () => { if (!button.hidden) { figure.classList.toggle("full"); measure(); } };
  button.addEventListener("click", turn);
  image.addEventListener("click", turn);
  image.addEventListener("load", measure);
  new ResizeObserver(measure).observe(image);
}

// ---- Charts
function linearTicks(low, high, most) {
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
  return Array.from({ length: Math.min(count, most + 1) }, (_, k) => (first + k) * step);
}
function logTicks(low, high, most) {  // low and high are exponents; so are the ticks
  const within = (ticks) => ticks.filter((tick) => tick >= low && tick <= high);
  const decades = Array.from({ length: Math.floor(high) - Math.floor(low) + 1 }, (_, k) => Math.floor(low) + k);
  const fine = within(decades.flatMap((k) => [k, k + Math.log10(2), k + Math.log10(5)]));
  if (fine.length < 3) return within(linearTicks(10 ** low, 10 ** high, most).map(Math.log10));
  if (fine.length <= most) return fine;
  const every = Math.ceil(within(decades).length / most);
  return within(decades).filter((tick) => tick % every === 0);
}
function write(value, digits = 12) {
  const rounded = Number(value.toPrecision(digits)), size = Math.abs(rounded);
  return size !== 0 && (size >= 1e6 || size < 1e-4) ? rounded.toExponential() : String(rounded);
}

function chart(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg"), legend = figure.querySelector(".legend");
  const output = figure.querySelector("output"), reset = figure.querySelector(".reset");
  const forward = data.log_y ? Math.log10 : (y) => y, back = data.log_y ? (y) => 10 ** y : (y) => y;
  const hint = figure !== all(".chart")[0] ? "" :  // once on a page is enough
    "Drag, pinch or Ctrl + wheel to zoom; hover, tap or use the arrow keys to read values.";
  const touches = new Map();
  let view = null, cursor = null, start = null, selection = null, box = null, shown = null, waiting = null;

  const lines = data.series.map(({ name, x, y }, i) => ({
    name, color: `var(--s${i % 7})`, dash: ["", "7 4", "2 3"][Math.floor(i / 7) % 3], visible: true,
    points: x.map((value, k) => ({ x: value, y: y[k] === null ? null : forward(y[k]) })).filter((p) => p.x !== null),
  }));
  const visible = () => lines.filter((line) => line.visible);

  function element(name, attributes, parent, text) {
    const made = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }
  function range(values, padding) {
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low > high) return [0, 1];
    const size = Math.max(Math.abs(low), Math.abs(high));  // a flat line is not magnified to its rounding
    const space = high - low <= size * 1e-6 ? size * 0.05 || 0.5 : (high - low) * padding;
    return [low - space, high + space];
  }
  function fit(low = -Infinity, high = Infinity) {  // the given x, and the y that the lines take there
    const points = visible().flatMap((line) => line.points).filter((p) => p.y !== null);
    const inside = points.filter((p) => p.x >= low && p.x <= high);
    const x = low === -Infinity ? range(points.map((p) => p.x), 0) : [low, high];
    const [bottom, top] = range((inside.length ? inside : points).map((p) => p.y), 0.04);
    return { x, y: data.from_zero ? [Math.min(0, bottom), Math.max(0, top)] : [bottom, top] };
  }
  const px = (x) => box.left + (x - shown.x[0]) / (shown.x[1] - shown.x[0]) * box.width;
  const py = (y) => box.top + (shown.y[1] - y) / (shown.y[1] - shown.y[0]) * box.height;
  const atX = (p) => shown.x[0] + (p - box.left) / box.width * (shown.x[1] - shown.x[0]);
  const atY = (p) => shown.y[1] - (p - box.top) / box.height * (shown.y[1] - shown.y[0]);

  const pen = (previous) => ((previous?.y ?? null) === null ? "M" : "L");  // lifted over a gap
  const path = (points) => points.map((p, k) =>
    (p.y === null ? "" : `${pen(points[k - 1])}${px(p.x).toFixed(2)} ${py(p.y).toFixed(2)}`)).join("");
  function draw() {
    const width = svg.clientWidth, height = svg.clientHeight;
    if (!width || !height) return;
    shown = view || fit();
    const tall = Math.max(2, Math.floor(height / 45));
    const yTicks = (data.log_y ? logTicks : linearTicks)(...shown.y, tall);
    const yTexts = yTicks.map((tick) => write(back(tick), data.log_y ? 6 : 12));
    const left = 34 + 7 * Math.max(1, ...yTexts.map((text) => text.length));
    box = { left, top: 8, width: Math.max(40, width - left - 14), height: height - 52 };
    const bottom = box.top + box.height, right = box.left + box.width;
    svg.replaceChildren();
    yTicks.forEach((tick, k) => {
      element("line", { class: "grid", x1: box.left, x2: right, y1: py(tick), y2: py(tick) }, svg);
      element("text", { x: box.left - 6, y: py(tick) + 4, "text-anchor": "end" }, svg, yTexts[k]);
    });
    for (const tick of linearTicks(...shown.x, Math.max(2, Math.floor(box.width / 80)))) {
      element("line", { class: "grid", x1: px(tick), x2: px(tick), y1: box.top, y2: bottom }, svg);
      element("text", { x: px(tick), y: bottom + 17, "text-anchor": "middle" }, svg, write(tick));
    }
    const middle = box.top + box.height / 2;
    element("text", { x: box.left + box.width / 2, y: height - 6, "text-anchor": "middle" }, svg, data.x_label);
    element("text", { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, svg, data.y_label);
    // A nested svg clips what lies outside the axes, and its view box keeps the outer coordinates.
    const { top } = box, place = { x: left, y: top, width: box.width, height: box.height };
    const plot = element("svg", { ...place, viewBox: `${left} ${top} ${box.width} ${box.height}` }, svg);
    for (const { color, dash, points } of visible()) {
      element("path", { d: path(points), "stroke-dasharray": dash, style: `stroke: ${color}` }, plot);
      points.forEach((p, k) => {  // a point between two gaps has no line to show it
        const alone = (points[k - 1]?.y ?? null) === null && (points[k + 1]?.y ?? null) === null;
        if (p.y !== null && (alone || points.length <= 30)) dot(p, color, plot, 3);
      });
    }
    reset.hidden = view === null;
    read(plot);
    if (selection) element("rect", { class: "select", ...selection }, plot);
  }
  const dot = (p, color, parent, r) => element("circle", { cx: px(p.x), cy: py(p.y), r, style: `fill: ${color}` }, parent);

  function read(plot) {  // the value of every line at the cursor, in the legend
    const nearest = (points) => points.reduce((best, p) =>
      (best === null || Math.abs(p.x - cursor) < Math.abs(best.x - cursor) ? p : best), null);
    const spoken = [], at = cursor === null ? null : nearest(visible().flatMap((line) => line.points));
    for (const line of lines) {
      const p = at !== null && line.visible ? nearest(line.points) : null;
      line.value.textContent = p === null ? "" : p.y === null ? "no value" : write(back(p.y), 4);
      if (p === null || p.y === null) continue;
      spoken.push(`${line.name} ${line.value.textContent}`);
      dot(p, line.color, plot, 4);
    }
    output.replaceChildren(at === null ? hint : `${data.x_label}: ${write(at.x, 7)}`);
    if (at === null) return;
    output.append(make("span", { className: "sr", textContent: `; ${spoken.join(", ")}` }));
    element("line", { class: "cursor", x1: px(at.x), x2: px(at.x), y1: box.top, y2: box.top + box.height }, plot);
  }
  const redraw = () => { waiting ??= requestAnimationFrame(() => { waiting = null; draw(); }); };  // once a frame

  function show(low, high, y) {  // zoom to a range of x, within the data and not below rounding
    const whole = fit().x;
    [low, high] = [Math.max(low, whole[0]), Math.min(high, whole[1])];
    if (high - low < (whole[1] - whole[0]) * 1e-5) return;
    view = high - low === whole[1] - whole[0] && !y ? null : { ...fit(low, high), ...(y && { y }) };
    redraw();
  }
  function zoom(factor, x) {  // from where it is going, which the next frame will show
    const [low, high] = (view ?? fit()).x;
    show(x - (x - low) * factor, x + (high - x) * factor);
  }
  const restore = () => { view = null; redraw(); };
  const where = ({ clientX, clientY }, frame = svg.getBoundingClientRect()) =>
    ({ x: clientX - frame.left, y: clientY - frame.top });
  const clear = (event) => { touches.delete(event.pointerId); start = selection = null; redraw(); };

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !box) return;
    svg.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, where(event));
    start = touches.size === 1 ? where(event) : null;
    selection = null;
    cursor = atX(where(event).x);
    redraw();
  });
  svg.addEventListener("pointermove", (event) => {
    if (!box) return;
    const now = where(event), before = touches.get(event.pointerId);
    if (before && touches.size === 2) {  // pinch: the two fingers keep the x beneath them
      const [other] = [...touches].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const ratio = Math.abs(before.x - other.x) / Math.max(20, Math.abs(now.x - other.x));
      if (Math.abs(before.x - other.x) > 20) zoom(ratio, atX(other.x));
    } else if (start && Math.abs(now.x - start.x) > 8) {
      const flat = event.pointerType === "touch" || Math.abs(now.y - start.y) < 20;
      const [y, height] = flat ? [box.top, box.height] : [Math.min(now.y, start.y), Math.abs(now.y - start.y)];
      selection = { x: Math.min(now.x, start.x), width: Math.abs(now.x - start.x), y, height };
    }
    if (before) touches.set(event.pointerId, now);
    cursor = atX(now.x);
    redraw();
  });
  svg.addEventListener("pointerup", (event) => {
    if (start && selection) {
      const { x, y, width, height } = selection;
      show(atX(x), atX(x + width), height === box.height ? null : [atY(y + height), atY(y)]);
    }
    clear(event);
  });
  svg.addEventListener("pointercancel", clear);
  svg.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && !start) cursor = null;
    redraw();
  });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // a plain wheel scrolls the page
    event.preventDefault();
    zoom(1.0015 ** event.deltaY, atX(where(event).x));
  }, { passive: false });
  svg.addEventListener("dblclick", restore);
  reset.addEventListener("click", () => { restore(); svg.focus(); });
  svg.addEventListener("keydown", (event) => {
    const xs = [...new Set(visible().flatMap((line) => line.points.map((p) => p.x)))]
      .filter((x) => x >= shown.x[0] && x <= shown.x[1]).sort((a, b) => a - b);
    const index = cursor === null ? -1 : xs.findIndex((x) => x >= cursor), centre = (shown.x[0] + shown.x[1]) / 2;
    const actions = {
      ArrowRight: () => { cursor = xs[Math.min(xs.length - 1, index + 1)]; },
      ArrowLeft: () => { cursor = xs[Math.max(0, index - 1)]; },
      Home: () => { cursor = xs[0]; }, End: () => { cursor = xs[xs.length - 1]; },
      "+": () => zoom(0.7, cursor ?? centre), "-": () => zoom(1 / 0.7, cursor ?? centre), Escape: restore,
    };
    if (!actions[event.key] || !xs.length || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
    redraw();
  });

  legend.style.setProperty("--letters", Math.max(0, ...lines.map((line) => line.name.length)));
  for (const line of lines) {
    const button = make("button", { type: "button", ariaPressed: "true" });
    line.value = make("b", {});
    const swatch = element("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, button);
    element("path", { d: "M0 5H26", "stroke-dasharray": line.dash, style: `stroke: ${line.color}; stroke-width: 3` }, swatch);
    button.append(make("span", { textContent: line.name }), line.value);
    button.addEventListener("click", () => {
      line.visible = !line.visible;
      button.ariaPressed = String(line.visible);
      redraw();
    });
    legend.append(button);
  }
  new ResizeObserver(redraw).observe(svg);
  draw();
}
all(".chart").forEach(chart);
})();
