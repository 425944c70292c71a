"use strict";
(() => {
const { $, setUpTables, setUpTheme } = globalThis.libraPage;
const settings = JSON.parse($("settings").textContent);
const AT_ONCE = 2;  // requests
const state = {
  images: [],  // {file, entry}, in the order of their choice
  shown: null,
  bitmap: null,  // of the image that is shown; null if the browser cannot decode it
  threshold: settings.threshold,
  hidden: new Set(),  // names of classes
  marked: -1,  // index in the table
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/* The same color as in pictures of libra-d2: see colours.py. */
function colour(id) {
  const [s, v] = [[0.85, 0.95], [0.45, 1], [0.9, 0.65]][Math.floor(id / 10) % 3];
  const hue = (0.13 + id * 0.618034) % 1;
  const part = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (v - v * s * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [part(5), part(3), part(1)];
}
const css = (rgb) => `rgb(${rgb.join(" ")})`;
const idOf = (p) => (Number.isInteger(p.class.category_id) ? p.class.category_id : p.class.label);
/* Black or white, whichever has more contrast. */
function textColour(rgb) {
  const [r, g, b] = rgb.map((v) => (v / 255 <= 0.03928 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

const visible = (entry) =>
  entry.predictions.filter((p) => p.score >= state.threshold && !state.hidden.has(p.class.name));

/* Detection */

function say(text) {
  $("status").textContent = text;
}

function complain(lines) {
  $("error").textContent = lines.join(" ");
  $("error").hidden = lines.length === 0;
}

async function detect(files) {
  if (!files.length) return;
  const errors = [];
  const found = new Array(files.length);
  let next = 0, done = 0;
  complain([]);
  say(`Detecting objects in ${files.length === 1 ? "an image" : `${files.length} images`} …`);
  const work = async () => {
    while (next < files.length) {
      const i = next++;
      try {
        found[i] = await ask(files[i]);
      } catch (e) {
        errors.push(`${files[i].name}: ${e.message}.`);
      }
      say(`${++done} of ${files.length} done`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const good = found.filter(Boolean);
  say(good.length === files.length ? "" : `${good.length} of ${files.length} done`);
  complain(errors);
  if (!good.length) return;
  state.images.push(...good);
  await show(good[0]);
}

async function ask(file) {
  if (file.size > settings.max_bytes) {
    throw new Error(`the file has ${file.size} bytes, and at most ${settings.max_bytes} are accepted`);
  }
  const form = new FormData();
  form.append("image", file, file.name);
  const query = new URLSearchParams();
  if ($("slice").value) query.set("slice", $("slice").value);
  const token = $("token")?.value;
  let response;
  try {
    response = await fetch(`detect?${query}`, {
      method: "POST",
      body: form,
      headers: token ? { Authorization: `Bearer ${token}` } : {},
    });
  } catch {
    throw new Error("the server cannot be reached");
  }
  const answer = await response.json().catch(() => ({ detail: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(String(answer.detail));
  return { file, entry: Object.values(answer)[0] };
}

/* The result */

async function show(image) {
  const bitmap = await createImageBitmap(image.file).catch(() => null);  // null of HEIC and TIFF
  state.bitmap?.close();
  state.bitmap = bitmap;
  state.shown = image;
  state.marked = -1;
  $("result").hidden = false;
  const buttons = state.images.map((one) => {
    const button = element("button", { type: "button", "aria-pressed": String(one === image) }, one.file.name);
    button.addEventListener("click", async () => {
      await show(one);
      $("images").children[state.images.indexOf(one)].focus();
    });
    return button;
  });
  $("images").hidden = buttons.length < 2;
  $("images").replaceChildren(...buttons);
  showClasses();
  update();
}

function showClasses() {
  const known = new Map();
  for (const image of state.images) {
    for (const p of image.entry.predictions) known.set(p.class.name, p);
  }
  const labels = [...known.keys()].sort((a, b) => a.localeCompare(b)).map((name) => {
    const input = element("input", { type: "checkbox" });
    input.checked = !state.hidden.has(name);
    input.addEventListener("change", () => {
      if (input.checked) state.hidden.delete(name);
      else state.hidden.add(name);
      state.marked = -1;
      update();
    });
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = css(colour(idOf(known.get(name))));
    return element("label", {}, input, swatch, name);
  });
  $("classes").replaceChildren($("classes").firstElementChild, ...labels);
}

function update() {
  $("threshold-value").textContent = state.threshold.toFixed(2);
  if (!state.shown) return;
  const { entry, file: { name } } = state.shown;
  const chosen = visible(entry);
  $("count").textContent = `${chosen.length} of ${entry.predictions.length} detections in ${name}`;
  draw(chosen);
  const rows = chosen.map((p, i) => {
    const box = p.bbox;
    const row = element(
      "tr", { tabindex: "0" },
      element("th", { scope: "row" }, p.class.name),
      ...[p.score.toFixed(2), ...[box.x_min, box.y_min, box.width, box.height].map((v) => v.toFixed(0))]
        .map((text) => element("td", {}, text)),
    );
    const mark = (index) => () => {
      state.marked = index;
      draw(chosen);
    };
    for (const event of ["focus", "mouseenter"]) row.addEventListener(event, mark(i));
    for (const event of ["blur", "mouseleave"]) row.addEventListener(event, mark(-1));
    return row;
  });
  $("rows").replaceChildren(...rows);
}

/* Draw the best boxes last, so that they are in front. Lines keep their width on the screen. */
function draw(chosen) {
  const canvas = $("canvas"), { bitmap } = state, { entry } = state.shown;
  canvas.hidden = $("save-picture").disabled = bitmap === null;
  $("no-picture").hidden = bitmap !== null;
  if (bitmap === null) return;
  const grow = Math.max(1, 640 / Math.max(entry.width, entry.height));
  canvas.width = Math.round(entry.width * grow);
  canvas.height = Math.round(entry.height * grow);
  const shownWidth = Math.min(canvas.width, canvas.parentElement.clientWidth || canvas.width);
  const unit = canvas.width / shownWidth;
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const size = (shownWidth < 480 ? 11 : 13) * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const marks = [...chosen.entries()].reverse().map(([i, p]) => {
    const [x, y, w, h] = [p.bbox.x_min, p.bbox.y_min, p.bbox.width, p.bbox.height].map((v) => v * grow);
    return { p, x, y, w, h, rgb: colour(idOf(p)), thick: (i === state.marked ? 5 : 2.5) * unit };
  });
  for (const { x, y, w, h, rgb, thick } of marks) {
    context.lineWidth = thick + 1.5 * unit;
    context.strokeStyle = "#000a";
    context.strokeRect(x, y, w, h);
    context.lineWidth = thick;
    context.strokeStyle = css(rgb);
    context.strokeRect(x, y, w, h);
  }
  for (const { p, x, y, rgb } of marks) {
    const text = `${p.class.name} ${Math.round(100 * p.score)}%`;
    const wide = context.measureText(text).width + 8 * unit, high = size + 5 * unit;
    const left = Math.max(0, Math.min(x, canvas.width - wide));
    const top = y >= high ? y - high : Math.min(y, canvas.height - high);
    context.fillStyle = css(rgb);
    context.fillRect(left, top, wide, high);
    context.fillStyle = textColour(rgb);
    context.fillText(text, left + 4 * unit, top + high / 2);
  }
  canvas.setAttribute("aria-label", `The image with ${chosen.length} detections, which the table lists`);
}

/* Downloads: what is shown. */

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const stem = (name) => name.replace(/\.[^.]*$/, "").replace(/[/\\]/g, "_") || "image";

function saveJson() {
  const { file: { name }, entry } = state.shown;
  const text = JSON.stringify({ [name]: { ...entry, predictions: visible(entry) } }, null, 1);
  save(new Blob([text], { type: "application/json" }), `${stem(name)}.json`);
}

function savePicture() {
  state.marked = -1;
  draw(visible(state.shown.entry));
  $("canvas").toBlob((blob) => save(blob, `${stem(state.shown.file.name)}-detections.png`), "image/png");
}

/* Where images come from */

function setUpSources() {
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    detect([...$("files").files]);
    $("files").value = "";  // the same file may be chosen again
  });
  let depth = 0;  // dragging over a child leaves the parent
  const over = (by) => {
    depth = by === 0 ? 0 : Math.max(0, depth + by);
    $("drop").classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", (e) => { e.preventDefault(); over(1); });
  addEventListener("dragleave", () => over(-1));
  addEventListener("dragover", (e) => e.preventDefault());
  addEventListener("drop", (e) => {
    e.preventDefault();
    over(0);
    const files = [...e.dataTransfer.files];
    if (files.length) detect(files);
    else complain(["Only files can be dropped. Save the image first, or copy and paste it."]);
  });
  addEventListener("paste", (e) => {
    const files = [...e.clipboardData.files];
    if (files.length) {
      e.preventDefault();
      detect(files);
    }
  });
}

function setUpCamera() {
  if (!navigator.mediaDevices?.getUserMedia) return;
  let stream = null;
  const close = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    $("viewfinder").hidden = true;
    $("camera").focus();
  };
  $("camera").hidden = false;
  $("camera").addEventListener("click", async () => {
    if (stream) return;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (e) {
      complain([`The camera cannot be used: ${e.message || e.name}.`]);
      return;
    }
    $("video").srcObject = stream;
    $("viewfinder").hidden = false;
    await $("video").play();
    $("shoot").focus();
  });
  $("shoot").addEventListener("click", () => {
    const video = $("video");
    const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const name = `camera-${new Date().toISOString().slice(0, 19).replace(/:/g, "-")}.jpg`;
    canvas.toBlob((blob) => detect([new File([blob], name, { type: blob.type })]), "image/jpeg", 0.95);
    close();
  });
  $("close").addEventListener("click", close);
}

setUpTables();
setUpTheme(update);
$("threshold").value = state.threshold;
$("threshold").addEventListener("input", () => {
  state.threshold = Number($("threshold").value);
  state.marked = -1;
  update();
});
$("save-json").addEventListener("click", saveJson);
$("save-picture").addEventListener("click", savePicture);
addEventListener("resize", update);
setUpSources();
setUpCamera();
$("token-form")?.addEventListener("submit", (e) => e.preventDefault());
document.documentElement.dataset.ready = "yes";
})();
