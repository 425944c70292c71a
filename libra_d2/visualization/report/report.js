"use strict";
(() => {
const { $, setUpTables, setUpTheme } = globalThis.libraPage;
const data = JSON.parse($("data").textContent);
const KINDS = {  // label, and whether it is shown by default
  hit: ["true positive", true],
  classification: ["wrong class", true],
  localisation: ["poorly localized", true],
  both: ["wrong class and box", true],
  duplicate: ["duplicate", true],
  background: ["background", true],
  missed: ["missed object", true],
  found: ["detected object", false],
  ignored: ["ignored", false],
};
const MANY_CLASSES = 20;  // from which the confusion matrix shows only a part by default
const state = {
  threshold: data.threshold,
  kinds: new Set(Object.keys(KINDS).filter((k) => KINDS[k][1])),
  className: "",
};
const FALSE_KINDS = ["classification", "localisation", "both", "duplicate", "background"];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}%`);
/* Plotly interprets some HTML in its texts. */
const plain = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text) => plain(text.length > 22 ? `${text.slice(0, 21)}…` : text);

/* Controls. All sliders share one threshold, and all checkboxes share one set of kinds. */

function thresholdSlider() {
  const input = element("input", {
    type: "range", min: 0, max: 1, step: 0.01, class: "threshold",
  });
  input.value = state.threshold;
  input.addEventListener("input", () => set({ threshold: Number(input.value) }));
  const label = element("label", {}, "Min. score ", input);
  label.append(element("output", { class: "threshold-value" }));
  return label;
}

function kindBoxes() {
  const fieldset = element("fieldset", {}, element("legend", {}, "Boxes to show"));
  for (const [kind, [text]] of Object.entries(KINDS)) {
    const input = element("input", { type: "checkbox", "data-kind": kind });
    input.addEventListener("change", () => {
      const kinds = new Set(state.kinds);
      kinds[input.checked ? "add" : "delete"](kind);
      set({ kinds });
    });
    const line = svg("svg", { class: `swatch box kind-${kind}`, viewBox: "0 0 32 14", "aria-hidden": "true" });
    line.append(svg("rect", { class: "stroke", x: -5, y: 7, width: 42, height: 20 }));
    fieldset.append(element("label", {}, input, line, text));
  }
  return fieldset;
}

let pending = false;
function set(change) {
  Object.assign(state, change);
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; update(); });
}

function update() {
  const text = state.threshold.toFixed(2);
  document.querySelectorAll("input.threshold").forEach((i) => {
    if (Number(i.value) !== state.threshold) i.value = state.threshold;
  });
  document.querySelectorAll(".threshold-value").forEach((o) => { o.textContent = text; });
  document.querySelectorAll("[data-kind]").forEach((i) => { i.checked = state.kinds.has(i.dataset.kind); });
  for (const frame of frames) frame.update();
  if (enlarged.frame) enlarged.frame.update();
  readout();
  moveThreshold();
}

/* Pictures and their boxes */

const frames = [];

function kindOfObject(object) {
  if (object.crowd) return "ignored";
  return object.found_score !== null && object.found_score >= state.threshold ? "found" : "missed";
}

function addBox(parent, image, bbox, label, description) {
  const [x, y, width, height] = bbox;
  const place = { x, y, width: Math.max(0, width), height: Math.max(0, height) };
  const group = svg("g");
  group.append(svg("rect", { class: "edge", ...place }), svg("rect", { class: "stroke", ...place }));
  const size = Math.max(image.width, image.height) / 50;
  const inside = y < 1.2 * size;
  group.append(
    svg("text", { x: Math.max(0, x), y: inside ? y + size : y - 0.25 * size, "font-size": size }, label),
    svg("title", {}, description));
  parent.append(group);
  return group;
}

function makeFrame(image, heading) {
  const layer = svg("svg", {
    viewBox: `0 0 ${image.width} ${image.height}`, preserveAspectRatio: "none", "aria-hidden": "true",
  });
  const canvas = element("span", { class: "canvas" });
  canvas.style.aspectRatio = `${image.width} / ${image.height}`;
  if (image.picture) canvas.append(element("img", { src: data.pictures[image.picture], alt: "" }));
  canvas.append(layer);
  if (image.note) canvas.append(element("span", { class: "note" }, image.note));
  const boxes = [];
  for (const object of image.objects) {
    const group = addBox(layer, image, object.bbox, object.class, `object: ${object.class}`);
    boxes.push({ group, object });
  }
  for (const detection of [...image.detections].reverse()) {  // highest scores on top
    const label = `${detection.class} ${(100 * detection.score).toFixed(0)}%`;
    const iou = detection.iou === null || detection.iou === undefined ? "" : `, IoU ${detection.iou.toFixed(2)}`;
    const kind = KINDS[detection.kind] ? KINDS[detection.kind][0] : detection.kind;
    boxes.push({ group: addBox(layer, image, detection.bbox, label, `${kind}: ${label}${iou}`), detection });
  }
  const counts = element("p", { class: "counts" });
  const frame = { image, heading, canvas, counts };
  frame.update = () => {
    const tally = { tp: 0, fp: 0, fn: 0 };
    for (const { group, object, detection } of boxes) {
      const kind = object ? kindOfObject(object) : detection.kind;
      const there = object || detection.score >= state.threshold;
      if (there && kind === "hit") tally.tp += 1;
      if (there && FALSE_KINDS.includes(kind)) tally.fp += 1;
      if (kind === "missed") tally.fn += 1;
      const shown = there && state.kinds.has(kind);
      group.setAttribute("class", `box kind-${kind}${shown ? "" : " off"}`);
    }
    counts.textContent = `${tally.tp} TP, ${tally.fp} FP, ${tally.fn} FN`;
  };
  return frame;
}

function addFrame(parent, image, series, heading) {
  const frame = makeFrame(image, heading);
  const button = element("button", { type: "button", class: "picture" }, frame.canvas);
  button.setAttribute("aria-label", `Enlarge ${heading}`);
  const index = series.push(frame) - 1;
  button.addEventListener("click", () => enlarge(series, index));
  frame.button = button;
  frames.push(frame);
  const caption = element("p", { class: "file" }, heading);
  parent.append(element("div", { class: "frame" }, button, caption, frame.counts));
}

const enlarged = { series: [], index: 0, frame: null };

function enlarge(series, index) {
  const dialog = $("enlarged");
  const source = series[index];
  const frame = makeFrame(source.image, source.heading);
  Object.assign(enlarged, { series, index, frame });
  const { width, height } = frame.image;
  frame.canvas.style.width = `min(100%, calc(62dvh * ${width / height}))`;
  $("enlarged-frame").replaceChildren(frame.canvas, frame.counts);
  $("enlarged-title").textContent = `${frame.heading} (${index + 1} of ${series.length})`;
  frame.update();
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const count = enlarged.series.length;
  if (count) enlarge(enlarged.series, (enlarged.index + by + count) % count);
}

function setUpDialog() {
  const dialog = $("enlarged");
  $("enlarged-controls").append(thresholdSlider(), kindBoxes());
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=range]")) return;  // the arrow keys move the slider
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    const source = enlarged.series[enlarged.index];
    enlarged.frame = null;
    $("enlarged-frame").replaceChildren();
    if (source) source.button.focus();
  });
}

function setUpGallery() {
  if (data.gallery.length) $("gallery-controls").append(thresholdSlider(), kindBoxes(), labelBox($("frames")));
  else $("frames").append(element("p", {}, "There are no images."));
  const series = [];
  for (const image of data.gallery) addFrame($("frames"), image, series, image.name);
}

function labelBox(parent) {
  const input = element("input", { type: "checkbox", class: "labels" });
  input.addEventListener("change", () => parent.classList.toggle("labelled", input.checked));
  return element("label", {}, input, "Show labels");
}

function setUpChanged() {
  if (!data.changed.length) return;
  $("changed-block").hidden = false;
  $("changed-controls").append(thresholdSlider(), kindBoxes(), labelBox($("changed")));
  const series = [];
  for (const pair of data.changed) {
    const row = element("div", { class: "pair" }, element("h4", {}, pair[0].name));
    pair.forEach((image, i) => { addFrame(row, image, series, `${image.name}, ${data.runs[i].name}`); });
    row.querySelectorAll(".file").forEach((p, i) => { p.textContent = data.runs[i].name; });
    $("changed").append(row);
  }
}

/* Charts. All of them are redrawn when the color theme changes. */

function colours() {
  const probe = element("span");
  document.body.append(probe);
  const found = {};
  for (const name of ["panel", "ink", "soft", "line", "blue", "orange", "green", "purple", "heat-low", "heat"]) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

let palette = {};
const fine = matchMedia("(pointer: fine)").matches;  // dragging on a phone scrolls the page

function axis(more = {}) {
  return {
    gridcolor: palette.line, zerolinecolor: palette.line, linecolor: palette.line, automargin: true,
    fixedrange: !fine, ...more, title: { text: more.title || "", standoff: 8 },
  };
}
const ratioAxis = (title, more = {}) => axis({ title, tickformat: ".0%", range: [0, 1.02], ...more });

function draw(id, traces, layout = {}) {
  const values = (t) => (t.z || (t.orientation === "h" ? t.x : t.y) || []);
  const empty = !traces.some((t) => values(t).some((v) => v !== null));
  const whole = {
    margin: { l: 8, r: 12, t: 8, b: 8 },
    font: { color: palette.ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: palette.panel, bordercolor: palette.line, font: { color: palette.ink } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: palette.soft, activecolor: palette.ink },
    dragmode: fine ? "zoom" : false, hoverdistance: 60,
    ...layout,
  };
  if (empty) {
    whole.annotations = [{ text: "no data", showarrow: false, xref: "paper", yref: "paper",
      x: 0.5, y: 0.5, font: { color: palette.soft } }];
  }
  const config = {
    responsive: true, displaylogo: false, displayModeBar: fine ? "hover" : false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],  // no button that uploads the chart
  };
  return Plotly.react($(id), traces, whole, config);
}

/* Runs differ in color and in pattern or dashes; the first run is blue and solid. */
const runColour = (i) => [palette.blue, palette.orange][i];
const pattern = (shape) => ({ shape, fillmode: "overlay", fgcolor: palette.panel, size: 6, solidity: 0.3 });
const runPattern = (i) => pattern(["", "/"][i]);
const two = data.runs.length > 1;
const NO_CURVE = { score: [], precision: [], recall: [], f1: [] };
const curveOf = (run) => run.curves[state.className] || NO_CURVE;

/* Index of the last point whose score is at least the threshold, or -1. */
function pointAt(curve, threshold) {
  let low = 0;
  let high = curve.score.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (curve.score[middle] >= threshold) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function readout() {
  const texts = data.runs.map((run) => {
    const curve = curveOf(run);
    const i = pointAt(curve, state.threshold);
    const prefix = two ? `${run.name}: ` : "";
    if (i < 0) return `${prefix}no detections`;
    return `${prefix}precision ${percent(curve.precision[i])}, recall ${percent(curve.recall[i])}, ` +
      `F1 ${percent(curve.f1[i])}`;
  });
  $("readout").textContent = `At a score threshold of ${state.threshold.toFixed(2)}: ${texts.join("; ")}`;
}

function drawCurves() {
  const hover = "recall %{x:.1%}<br>precision %{y:.1%}<br>score ≥ %{customdata:.2f}<extra></extra>";
  const pr = data.runs.map((run, i) => {
    const curve = curveOf(run);
    return {
      x: curve.recall, y: curve.precision, customdata: curve.score, name: short(run.name), mode: "lines",
      line: { color: runColour(i), width: 2.5, dash: ["solid", "dash"][i] }, hovertemplate: hover,
    };
  });
  data.runs.forEach((_run, i) => { pr.push({
    x: [], y: [], mode: "markers", showlegend: false, hoverinfo: "skip",
    marker: { size: 12, color: palette.panel, line: { color: runColour(i), width: 3 } },
  }); });
  draw("chart-pr", pr, { xaxis: ratioAxis("recall"), yaxis: ratioAxis("precision"), showlegend: two });

  const lines = [];
  const styles = { precision: ["blue", "dash"], recall: ["orange", "dot"], f1: ["green", "solid"] };
  data.runs.forEach((run, i) => {
    for (const [key, [colour, dash]] of Object.entries(styles)) {
      const curve = curveOf(run);
      const label = key === "f1" ? "F1" : key;
      lines.push({
        x: curve.score, y: curve[key], mode: "lines", opacity: i ? 0.6 : 1,
        name: two ? `${label}, ${short(run.name)}` : label,
        line: { color: palette[colour], dash, width: (key === "f1" ? 3 : 2) - i, shape: "vh" },
        hovertemplate: two ? `%{fullData.name} %{y:.1%}<extra></extra>` : `${label} %{y:.1%}<extra></extra>`,
      });
    }
  });
  draw("chart-f1", lines, {
    hovermode: "x unified", xaxis: axis({ title: "score threshold", range: [0, 1], dtick: 0.2 }), yaxis: ratioAxis(""),
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: two ? 11 : 13 } },
  });
  drawScores();
  moveThreshold();
}

function moveThreshold() {
  if (!$("chart-scores").data) return;
  const points = data.runs.map((run) => {
    const curve = curveOf(run);
    const i = pointAt(curve, state.threshold);
    return i < 0 ? [[], []] : [[curve.recall[i]], [curve.precision[i]]];
  });
  const indices = points.map((_, i) => data.runs.length + i);
  Plotly.restyle($("chart-pr"), { x: points.map((p) => p[0]), y: points.map((p) => p[1]) }, indices);
  const line = {
    type: "line", x0: state.threshold, x1: state.threshold, y0: 0, y1: 1, yref: "paper",
    line: { color: palette.soft, width: 2, dash: "dash" },
  };
  Plotly.relayout($("chart-f1"), { shapes: [line] });
  Plotly.relayout($("chart-scores"), { shapes: [line] });
}

function drawScores() {
  const { edges, classes } = data.runs[0].score_histogram;
  const counts = classes[state.className] || { hits: [], misses: [] };
  const middle = counts.hits.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const between = counts.hits.map((_, i) => `${edges[i].toFixed(2)} to ${edges[i + 1].toFixed(2)}`);
  const bars = (name, y, colour, shape) => ({
    type: "bar", x: middle, y, name, customdata: between, hovertemplate: `%{y} ${name}, score %{customdata}<extra></extra>`,
    marker: { color: palette[colour], pattern: pattern(shape) },
  });
  draw("chart-scores", [bars("true positives", counts.hits, "blue", ""), bars("false positives", counts.misses, "orange", "/")], {
    barmode: "stack", bargap: 0.08,
    xaxis: axis({ title: two ? `score, ${short(data.runs[0].name)}` : "score", range: [0, 1] }),
    yaxis: axis({ title: "detections", rangemode: "tozero" }),
  });
}

function drawBreakdown(id, key, note) {
  const traces = [];
  data.runs.forEach((run, i) => {
    const rows = run[key];
    const extra = rows.map((r) => note(r));
    const bars = (metric) => ({
      type: "bar", x: rows.map((r) => r.name), y: rows.map((r) => r[metric]), customdata: extra,
      name: two ? short(run.name) : metric,
      text: rows.map((r) => percent(r[metric])), textposition: "outside", cliponaxis: false,
      marker: { color: runColour(i), pattern: runPattern(i) },
      hovertemplate: `${metric} %{y:.1%}<br>%{customdata}<extra></extra>`,
    });
    traces.push(bars("AP"));
    if (!two) {
      traces.push({ ...bars("AP50"), marker: { color: palette.green, pattern: pattern(".") } });
    }
  });
  draw(id, traces, {
    barmode: "group", xaxis: axis({ type: "category" }),
    yaxis: ratioAxis(two ? "AP" : "", { range: [0, 1.1], tickvals: [0, 0.25, 0.5, 0.75, 1] }),
    uniformtext: { minsize: 9, mode: "hide" },
  });
}

function drawIou() {
  draw("chart-iou", data.runs.map((run, i) => ({
    x: run.ap_by_iou.map((r) => r.iou), y: run.ap_by_iou.map((r) => r.AP), mode: "lines+markers",
    name: short(run.name), line: { color: runColour(i), width: 2.5, dash: ["solid", "dash"][i] },
    marker: { symbol: ["circle", "diamond"][i], size: 8 },
    hovertemplate: "AP %{y:.1%} at IoU %{x:.2f}<extra></extra>",
  })), { xaxis: axis({ title: "IoU threshold" }), yaxis: ratioAxis("AP"), showlegend: two });
}

function drawTide() {
  const traces = [];
  data.runs.forEach((run, i) => {
    for (const part of ["errors", "special"]) {
      const rows = run.tide[part];
      const points = rows.map((r) => (r.AP_cost === null ? null : 100 * r.AP_cost));
      traces.push({
        type: "bar", orientation: "h", y: rows.map((r) => r.name), x: points, name: short(run.name),
        offsetgroup: String(i), showlegend: two && part === "errors",
        text: points.map((p) => (p === null ? "–" : p.toFixed(1))), textposition: "outside", cliponaxis: false,
        customdata: rows.map((r) => (r.count === undefined ? "all errors of this kind" : `${r.count} times`)),
        marker: { color: part === "errors" ? runColour(i) : palette.purple, pattern: runPattern(i) },
        hovertemplate: "%{y}: %{x:.2f} points of AP<br>%{customdata}<extra></extra>",
      });
    }
  });
  draw("chart-tide", traces, {
    barmode: "group", xaxis: axis({ title: "possible gain in AP, points", rangemode: "tozero" }),
    yaxis: axis({ type: "category", autorange: "reversed", ticklabelstandoff: 6 }), showlegend: two,
    margin: { l: 8, r: 40, t: 8, b: 8 },
  });
}

function drawConfusion() {
  const { names, matrix } = data.runs[Number($("confusion-run").value) || 0].confusion;
  const last = names.length - 1;
  let kept = names.map((_, i) => i);
  const limit = Number($("confusion-part").value);
  if (last > MANY_CLASSES && limit) {
    const wrong = (i) => kept.reduce((sum, j) => sum + (j === i ? 0 : matrix[i][j] + matrix[j][i]), 0);
    const worst = kept.slice(0, last).sort((a, b) => wrong(b) - wrong(a)).slice(0, limit);
    kept = [...worst.sort((a, b) => a - b), last];
  }
  const figure = $("chart-confusion").closest("figure");
  figure.classList.toggle("wide", names.length > 8);
  figure.parentElement.classList.toggle("halves", names.length > 8);
  const few = kept.length <= MANY_CLASSES / 2 + 3;
  const total = matrix.map((row) => row.reduce((a, b) => a + b, 0));
  const label = (i, end) => (i === last ? end : short(names[i]));
  const at = kept.map((_, i) => i);
  const ticks = (end) => ({ tickvals: at, ticktext: kept.map((i) => label(i, end)), showgrid: false, zeroline: false });
  const heat = {
    type: "heatmap", z: kept.map((i) => kept.map((j) => (total[i] ? matrix[i][j] / total[i] : 0))),
    x: at, y: at, zmin: 0, zmax: 1, xgap: 1, ygap: 1,
    colorscale: [[0, palette.panel], [0.15, palette["heat-low"]], [1, palette.heat]], hoverongaps: false,
    colorbar: { tickformat: ".0%", thickness: 12, outlinewidth: 0 }, showscale: innerWidth > 640,
    text: kept.map((i) => kept.map((j) => String(matrix[i][j]))),
    customdata: kept.map((i) => kept.map((j) => `${label(i, "background")} → ${label(j, "missed")}`)),
    hovertemplate: "%{customdata}<br>%{text} times, %{z:.1%} of the row<extra></extra>",
  };
  if (few) heat.texttemplate = "%{text}";
  draw("chart-confusion", [heat], {
    xaxis: axis({ ...ticks("missed"), title: "detected as", tickangle: few && kept.length < 6 ? 0 : -60 }),
    yaxis: axis({ ...ticks("background"), title: "true class", autorange: "reversed" }),
    font: { color: palette.ink, family: getComputedStyle(document.body).fontFamily, size: kept.length > 30 ? 8 : 12 },
  });
}

function drawCalibration() {
  const traces = [];
  data.runs.forEach((run, i) => {
    const bins = run.calibration.bins;
    const common = {
      x: bins.map((b) => (b.low + b.high) / 2), name: two ? short(run.name) : "precision", type: "bar",
      marker: { color: runColour(i), pattern: runPattern(i) },
    };
    const notes = bins.map((b) => `${b.count} detections, scores ${b.low.toFixed(2)} to ${b.high.toFixed(2)}<br>` +
      `mean score ${percent(b.mean_score)}`);
    traces.push({
      ...common, y: bins.map((b) => b.precision), customdata: notes,
      hovertemplate: "precision %{y:.1%}<br>%{customdata}<extra></extra>",
    });
    traces.push({
      ...common, y: bins.map((b) => b.count), yaxis: "y2", showlegend: false, customdata: notes,
      hovertemplate: "%{customdata}<extra></extra>",
    });
  });
  traces.push({
    x: [0, 1], y: [0, 1], mode: "lines", name: "perfect calibration", hoverinfo: "skip",
    line: { color: palette.ink, dash: "dash", width: 2 },
  });
  draw("chart-calibration", traces, {
    barmode: "group", bargap: 0.08, xaxis: axis({ title: "score", range: [0, 1], anchor: "y2" }),
    yaxis: ratioAxis("precision", { domain: [0.36, 1] }),
    yaxis2: axis({ title: "detections", domain: [0, 0.28], rangemode: "tozero", nticks: 4 }),
  });
}

function drawMetrics() {
  if (!data.metrics.length) return;
  const known = data.metrics.filter((m) => m.difference !== null);
  const points = (value, other) => (value === null ? 0 : 100 * Math.abs(value - other));
  draw("chart-metrics", [{
    type: "scatter", mode: "markers", y: known.map((m) => (m.name === "f1" ? "F1" : m.name)), x: known.map((m) => 100 * m.difference),
    error_x: {
      type: "data", symmetric: false, thickness: 3, width: 8, color: palette.blue,
      array: known.map((m) => points(m.high, m.difference)), arrayminus: known.map((m) => points(m.low, m.difference)),
    },
    marker: { color: palette.blue, size: 12, symbol: "diamond" },
    customdata: known.map((m) => [percent(m.a), percent(m.b), m.p_value === null ? "–" : m.p_value.toFixed(3)]),
    hovertemplate: "%{y}: %{x:+.1f} points<br>%{customdata[0]} to %{customdata[1]}, p-value %{customdata[2]}<extra></extra>",
  }], {
    xaxis: axis({ title: "difference in points", zeroline: true }),
    yaxis: axis({ type: "category", autorange: "reversed", ticklabelstandoff: 6 }),
    shapes: [{ type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { color: palette.ink, dash: "dash", width: 2 } }],
  });
}

function drawAll() {
  palette = colours();
  drawMetrics();
  drawCurves();
  drawBreakdown("chart-size", "ap_by_size", (r) => `${r.num_objects} objects, area ${r.low} to ${r.high === null ? "∞" : r.high} px²`);
  drawBreakdown("chart-crowding", "ap_by_crowding", (r) => `${r.num_images} images, ${r.num_objects} objects`);
  drawIou();
  drawTide();
  drawConfusion();
  drawCalibration();
}

function setUpSelects() {
  const options = ["", ...data.classes];
  options.forEach((name, i) => {
    $("class").append(element("option", { value: i }, name || "all classes"));
  });
  $("class").addEventListener("change", () => {
    state.className = options[Number($("class").value)];
    drawCurves();
    readout();
  });
  $("threshold-controls").append(thresholdSlider());
  $("best").addEventListener("click", () => {
    const best = data.best[state.className];
    // Rounded down to the slider's step, so that the best detection itself is kept.
    if (best !== null && best !== undefined) set({ threshold: Math.floor(100 * best + 1e-6) / 100 });
  });
  data.runs.forEach((run, i) => {
    $("confusion-run").append(element("option", { value: i }, run.name));
  });
  $("confusion-run-label").hidden = !two;
  $("confusion-part-label").hidden = data.classes.length <= MANY_CLASSES;
  for (const id of ["confusion-run", "confusion-part"]) $(id).addEventListener("change", drawConfusion);
}

setUpTables();
setUpDialog();
setUpGallery();
setUpChanged();
setUpSelects();
setUpTheme(drawAll);
update();
document.documentElement.dataset.ready = "yes";
})();
