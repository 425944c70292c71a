"use strict";
(() => {
const { $, setUpTables, setUpTheme } = globalThis.libraPage;
const SIZE = 1000;  // width and height of a chart in the units of its points
const REACH = 30;  // pixels from a curve at which it is pointed at

/* Show one of several parts of the page: that of the metric, or of the variant, in a select. */
function setUpChoice(select) {
  const parts = document.querySelectorAll(`[data-choice="${select.id}"]`);
  const show = () => {
    for (const part of parts) part.hidden = part.dataset.value !== select.value;
  };
  select.addEventListener("change", show);
  show();  // browsers keep the choice when a page is loaded again
}

function setUpLegend() {
  for (const box of document.querySelectorAll(".legend input")) {
    const lines = document.querySelectorAll(`polyline[data-variant="${box.dataset.variant}"]`);
    const show = () => {
      for (const line of lines) line.classList.toggle("off", !box.checked);
    };
    box.addEventListener("change", show);
    show();
  }
}

function scale(text) {
  const [low, high, margin] = text.split(" ").map(Number);
  return (place) => low + ((100 * place) / SIZE - margin) / (100 - 2 * margin) * (high - low);
}

/* Write the values of the point next to the mouse below the chart. */
function setUpPointing(plot) {
  const area = plot.querySelector("svg");
  const text = plot.parentElement.querySelector(".pointed");
  const hint = text.textContent;
  const iteration = scale(plot.dataset.x);
  const value = scale(plot.dataset.y);
  const lines = [...area.querySelectorAll("polyline")].map((line) => {
    const points = line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number));
    return { line, points };
  });
  let near = null;
  const point = (found) => {
    if (near) near.line.classList.remove("near");
    near = found;
    text.textContent = hint;
    if (!found) return;
    found.line.classList.add("near");
    const [x, y] = found.point;
    text.textContent = `${found.line.dataset.title}: ${value(SIZE - y).toPrecision(4)} at iteration ${Math.round(iteration(x))}`;
  };
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const [unitX, unitY] = [box.width / SIZE, box.height / SIZE];
    let best = null;
    let least = REACH;
    for (const { line, points } of lines) {
      if (line.classList.contains("off")) continue;
      for (const p of points) {
        const distance = Math.hypot(box.left + p[0] * unitX - event.clientX, box.top + p[1] * unitY - event.clientY);
        if (distance < least) {
          least = distance;
          best = { line, point: p };
        }
      }
    }
    point(best);
  });
  area.addEventListener("pointerleave", () => point(null));
}

setUpTables();
for (const id of ["metric", "class-variant"]) if ($(id)) setUpChoice($(id));
setUpLegend();
document.querySelectorAll(".plot").forEach(setUpPointing);
setUpTheme(() => {});
document.documentElement.dataset.ready = "yes";
})();
