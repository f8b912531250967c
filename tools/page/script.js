"use strict";

const by = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const state = { file: null, size: null, views: {}, found: {}, urls: [], box: null };
let about, unit = "bpp", running = false, again = false;

const sides = [...document.querySelectorAll("#box input")];
const roi = () => document.querySelector("[name=roi]:checked").value;

// The slider's 0 to 100 are 0.05 to 2 bits per pixel, by equal factors.
const bppOf = (value) => Number((0.05 * 40 ** (value / 100)).toPrecision(2));
const valueOf = (bpp) => Math.round((100 * Math.log(bpp / 0.05)) / Math.log(40));

function showRate(bpp) {
  const text = Number(bpp.toPrecision(2)).toString();
  by("bpp-shown").textContent = text;
  by("bpp").setAttribute("aria-valuetext", `${text} bits per pixel`);
}

// Sends one request at a time. Of the changes made meanwhile, the last is sent next.
async function update() {
  if (!state.file) return;
  if (running) {
    again = true;
    return;
  }
  running = true;
  const began = performance.now();
  const tick = () => {
    const seconds = Math.round((performance.now() - began) / 1000);
    by("status").textContent = seconds > 4 ? `Working, ${seconds} s` : "Working";
  };
  tick();
  const timer = setInterval(tick, 5000);
  do {
    again = false;
    try {
      await ask(state.file);
    } catch (e) {
      fail(e.message);
    }
  } while (again);
  clearInterval(timer);
  running = false;
}

async function ask(file) {
  if (file.size > about.max_bytes) {
    throw new Error(`${file.name} is larger than ${Math.round(about.max_bytes / 1e6)} MB`);
  }
  const wish = new URLSearchParams({ name: file.name, roi: roi() });
  wish.set(unit, unit === "bpp" ? bppOf(by("bpp").value) : by("bytes").value);
  if (roi() === "box") wish.set("box", sides.map((side) => side.value).join(","));
  const request = fetch(`show?${wish}`, { method: "POST", body: file });
  const response = await request.catch(() => {
    throw new Error("The program behind this page does not answer: has it ended?");
  });
  if (!response.ok) throw new Error(await response.text());
  const answer = await response.arrayBuffer();
  const length = new DataView(answer).getUint32(0);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(answer, 4, length)));
  if (file !== state.file) return;
  if (facts.error) throw new Error(`${file.name}: ${facts.error}`);
  const blobs = {};
  let at = 4 + length;
  for (const [name, bytes] of facts.files) {
    blobs[name] = answer.slice(at, (at += bytes));
  }
  await show(facts, blobs);
}

function fail(sentence) {
  by("status").textContent = "";
  by("error").textContent = sentence;
  by("error").hidden = false;
  by("result").hidden = by("download").hidden = true;
}

async function show(facts, blobs) {
  const old = state.urls;
  const url = (name, type) => URL.createObjectURL(new Blob([blobs[name]], { type }));
  state.size = facts.size;
  state.found = facts.found;
  state.views = {};
  const images = Object.entries(facts.views).map(([key, title]) => {
    const image = new Image();
    image.src = url(key, "image/png");
    image.draggable = false;
    state.views[key] = { title, image };
    return image;
  });
  await Promise.all(images.map((image) => image.decode()));
  const download = by("download");
  download.href = url("hmc", "application/octet-stream");
  download.download = facts.name;
  download.textContent = `Download ${facts.name} (${facts.bytes.toLocaleString("en")} bytes)`;
  state.urls = [...images.map((image) => image.src), download.href];
  old.forEach(URL.revokeObjectURL);

  choices("left", "original" in facts.views ? "original" : "x_hat");
  choices("right", "x_hat" in facts.views && "original" in facts.views ? "x_hat" : "bits");
  by("boxes-label").hidden = !Object.keys(state.found).length;
  by("rate").disabled = by("regions").disabled = facts.most === undefined;
  if (facts.most !== undefined) {
    const most = (8 * facts.most) / (facts.size[0] * facts.size[1]);
    if (unit === "bpp") {
      by("bytes").value = facts.most;
    } else {
      by("bpp").value = valueOf(most);
      showRate(most);
    }
  }
  figures(facts);
  by("error").hidden = true;
  by("result").hidden = download.hidden = false;
  by("status").textContent = `${facts.name}: ${facts.size.join(" x ")} pixels in ` +
    `${facts.bytes.toLocaleString("en")} bytes`;
  layers();
}

function choices(id, usual) {
  const select = by(id), before = select.value;
  select.replaceChildren(
    ...Object.entries(state.views).map(([key, view]) => new Option(view.title, key)),
  );
  select.value = before in state.views ? before : usual;
}

function figures(facts) {
  const rows = [
    ["Bytes", facts.bytes.toLocaleString("en")],
    ["Bits per pixel", facts.bpp.toFixed(3)],
  ];
  for (const [key, value] of Object.entries(facts.psnr)) {
    rows.push([`PSNR ${facts.views[key].toLowerCase()}`, value === null ? "equal" : `${value.toFixed(2)} dB`]);
  }
  if (facts.encode !== undefined) rows.push(["Encoded in", `${facts.encode.toFixed(2)} s`]);
  rows.push(["Decoded in", `${facts.decode.toFixed(2)} s`]);
  for (const [key, found] of Object.entries(facts.found)) {
    rows.push([`Found, ${facts.views[key].toLowerCase()}`, String(found.length)]);
  }
  if (facts.finer) rows.push(["Coded finer", `${Math.round(100 * facts.finer)} % of it`]);
  by("figures").replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      row.firstChild.textContent = name;
      row.lastChild.textContent = value;
      return row;
    }),
  );
  by("legend").textContent = `Bits of blocks of 16 x 16 pixels: dark is 0, and yellow is ` +
    `${facts.brightest.toFixed(2)} bits per pixel.`;
  const remarks = [...(facts.remarks || [])];
  if (!("x_bar" in facts.views)) remarks.push("this codec has no separate view for machines: they read the view for people");
  if (!facts.command) remarks.push(`decoded with ${facts.weights}; size and regions were chosen when the file was coded`);
  by("remarks").textContent = remarks.length ? `Note: ${remarks.join("; ")}.` : "";
  by("command").hidden = !facts.command;
  by("command").lastElementChild.textContent = facts.command || "";
}

function layers() {
  arrange();
  by("legend").hidden = ![by("left").value, by("right").value].includes("bits");
  for (const side of ["left", "right"]) {
    const key = by(side).value, view = state.views[key], layer = by(`layer-${side}`);
    const image = view.image.cloneNode();
    image.alt = view.title;
    layer.replaceChildren(image);
    const found = by("boxes").checked && state.found[key];
    if (found) layer.append(boxes(found));
  }
}

const describe = (object) => `${object.name} ${object.score.toFixed(2)}`;

function boxes(found) {
  const svg = document.createElementNS(SVG, "svg");
  const [width, height] = state.size;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Found: ${found.map(describe).join(", ") || "nothing"}`);
  const letter = (12 * width) / (by("stage").clientWidth || width);
  const alike = new Set(found.map((object) => object.name)).size < 2;
  for (const object of found) {
    const box = object.box;
    svg.append(rectangle(document.createElementNS(SVG, "rect"), box));
    const text = document.createElementNS(SVG, "text");
    text.textContent = alike ? object.score.toFixed(2) : describe(object);
    text.setAttribute("font-size", letter);
    text.setAttribute("x", box[0] + letter / 3);
    text.setAttribute("y", box[1] + 1.2 * letter);
    svg.append(text);
  }
  return svg;
}

function rectangle(rect, [left, top, right, bottom]) {
  rect.setAttribute("x", left);
  rect.setAttribute("y", top);
  rect.setAttribute("width", Math.max(0, right - left));
  rect.setAttribute("height", Math.max(0, bottom - top));
  return rect;
}

function arrange() {
  if (!state.size) return;
  const [width, height] = state.size, stage = by("stage");
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.maxWidth = `${Math.max(200, (0.78 * window.innerHeight * width) / height)}px`;
  const at = by("divider").value;
  by("divider").setAttribute("aria-valuetext", `${at} percent`);
  by("layer-left").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
  by("layer-right").style.clipPath = `inset(0 0 0 ${at}%)`;
  by("line").style.left = `${at}%`;
  const drawing = roi() === "box", box = sides.map((side) => Number(side.value));
  by("box").hidden = !drawing;
  stage.classList.toggle("drawing", drawing);
  by("drawn").toggleAttribute("hidden", !drawing || !box[2] || !box[3]);
  by("drawn").setAttribute("viewBox", `0 0 ${width} ${height}`);
  rectangle(by("drawn").firstElementChild, box);
}

function take(file) {
  state.file = file;
  sides.forEach((side) => (side.value = ""));
  if (roi() === "box") document.querySelector("[value=none]").checked = true;
  by("chosen").textContent = file.name;
  arrange();
  update();
}

async function example(name) {
  const response = await fetch(`pictures/${name}`);
  take(new File([await response.blob()], name));
}

// Returns a pointer's position on the picture in pixels.
function place(event) {
  const area = by("stage").getBoundingClientRect();
  const near = (value, most) => Math.round(Math.min(Math.max(value, 0), 1) * most);
  return [
    near((event.clientX - area.left) / area.width, state.size[0]),
    near((event.clientY - area.top) / area.height, state.size[1]),
  ];
}

let from = null;
by("stage").addEventListener("pointerdown", (event) => {
  if (event.button) return;
  by("stage").setPointerCapture(event.pointerId);
  from = place(event);
  drag(event);
});
by("stage").addEventListener("pointermove", (event) => from && drag(event));
by("stage").addEventListener("pointerup", (event) => {
  if (!from) return;
  const to = place(event);
  if (roi() === "box" && to[0] !== from[0] && to[1] !== from[1]) update();
  from = null;
});
by("stage").addEventListener("pointercancel", () => (from = null));

function drag(event) {
  const to = place(event);
  if (roi() === "box") {
    const corners = [0, 1].map((axis) => [from[axis], to[axis]].sort((a, b) => a - b));
    [corners[0][0], corners[1][0], corners[0][1], corners[1][1]].forEach(
      (value, i) => (sides[i].value = value),
    );
  } else {
    by("divider").value = (100 * to[0]) / state.size[0];
  }
  arrange();
}

by("divider").addEventListener("input", arrange);
by("left").addEventListener("change", layers);
by("right").addEventListener("change", layers);
by("boxes").addEventListener("change", layers);
window.addEventListener("resize", () => state.size && layers());

by("bpp").addEventListener("input", () => {
  unit = "bpp";
  showRate(bppOf(by("bpp").value));
  update();
});
by("bytes").addEventListener("change", () => {
  unit = "bytes";
  update();
});
by("regions").addEventListener("change", (event) => {
  arrange();
  const whole = sides.every((side) => side.value !== "");
  if (roi() === "box" ? whole : event.target.name === "roi") update();
});
by("controls").addEventListener("submit", (event) => event.preventDefault());
by("file").addEventListener("change", () => {
  if (by("file").files[0]) take(by("file").files[0]);
  by("file").value = "";
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

async function start() {
  showRate(bppOf(by("bpp").value));
  about = await (await fetch("about")).json();
  if (about.missing) {
    document.querySelector("[value=detector]").disabled = true;
    by("missing").textContent = about.missing;
    by("missing").hidden = false;
  }
  by("examples").replaceChildren(
    ...about.pictures.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(new Image());
      button.firstChild.src = `pictures/${name}`;
      button.firstChild.alt = `Example ${name}`;
      button.addEventListener("click", () => example(name));
      return button;
    }),
  );
  await example(about.pictures[0]);
}
start();
