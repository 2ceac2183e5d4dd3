"use strict";
// Finds an episode among all of the run, and compares two variants on it. Of some there are pictures, which
// are in the page and are moved; of the others there is only the IoU.
{
const data = JSON.parse(document.querySelector("#episodes-data").textContent);
const section = document.querySelector("#episodes");
const [form, finder, viewer] = [".controls", ".finder", ".viewer"].map(name => section.querySelector(name));
const [table, found, more, walk] = ["table", ".found", ".more", ".walk"].map(name => section.querySelector(name));
const TRUTH = "";
// Where the pictures are below the list, a long one would hide them.
const PAGE = matchMedia("(min-width: 64rem)").matches ? 50 : 10;

const all = data.lists.flatMap(list => list.episode.map((number, at) => ({
  domain: list.domain, shot: list.shot, number, className: list.classes[list.class[at]], list, at,
  anchor: `episode-${list.domain}-${list.shot}shot-${number}`,
})));
for (const episode of all) episode.pictures = document.getElementById(episode.anchor);
const titleOf = variant => variant === TRUTH ? "Ground truth" : data.variants[variant];
const iouOf = (episode, variant) => variant === TRUTH ? 100 : episode.list.iou[variant][episode.at] / 100;

// What the columns hold, in their order, and the numbers or words by which they sort.
const columns = [
  { key: "class", value: e => e.className },
  { key: "left", value: e => iouOf(e, form.left.value) },
  { key: "right", value: e => iouOf(e, form.right.value) },
  { key: "change", value: e => iouOf(e, form.right.value) - iouOf(e, form.left.value) },
  { key: "domain", value: e => data.domains[e.domain] },
  { key: "shot", value: e => e.shot },
  { key: "episode", value: e => e.number },
];
const values = Object.fromEntries(columns.map(({ key, value }) => [key, value]));
values.size = e => Math.abs(values.change(e));
const heads = [...table.tHead.rows[0].cells];
const status = document.createElement("p");
status.className = "seen-by-readers";
status.setAttribute("role", "status");
table.closest(".scroll").after(status);

let hits = [], shown = PAGE, current = null;

function find() {
  const wanted = form.class.value.trim().toLowerCase();
  const bound = (input, otherwise) => Number.isNaN(input.valueAsNumber) ? otherwise : input.valueAsNumber;
  const [least, most] = [bound(form.least, 0), bound(form.most, 100)];
  hits = all.filter(e => (!form.domain.value || e.domain === form.domain.value)
    && (!form.shot.value || e.shot === Number(form.shot.value))
    && (e.className.toLowerCase().includes(wanted) || `${e.number}` === wanted)
    && values.left(e) >= least && values.left(e) <= most
    && (!form.pictured.checked || e.pictures));
  const [key, direction] = form.sort.value.split(" ");
  const sign = direction === "ascending" ? 1 : -1;
  const value = values[key];
  if (value) {
    const keyed = hits.map(e => [value(e), e]);
    hits = keyed.sort(([x], [y]) => sign * (typeof x === "number" ? x - y : collator.compare(x, y))).map(([, e]) => e);
  }
  shown = PAGE;
  heads.forEach((head, column) => {
    if (columns[column].key === key) head.setAttribute("aria-sort", direction);
    else head.removeAttribute("aria-sort");
  });
  heads[1].querySelector("button").textContent = titleOf(form.left.value);
  heads[2].querySelector("button").textContent = titleOf(form.right.value);
  const pictured = hits.filter(e => e.pictures).length;
  found.textContent = hits.length
    ? `${hits.length} of ${all.length} episodes, ${pictured} with pictures (underlined); IoU in %`
    : "No episode is like this: widen the IoU, or reset";
  list();
  if (!hits.includes(current)) show(hits.find(e => e.pictures) ?? hits[0] ?? null);
  else show(current);
}

function cell(text, row) {
  row.insertCell().textContent = text;
}

function list() {
  const body = document.createElement("tbody");
  for (const episode of hits.slice(0, shown)) {
    const row = body.insertRow();
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = episode.className;
    if (!episode.pictures) {
      const lacking = document.createElement("span");
      Object.assign(lacking, { className: "seen-by-readers", textContent: ", no pictures" });
      button.classList.add("lacking");
      button.append(lacking);
    }
    row.insertCell().append(button);
    for (const key of ["left", "right"]) cell(values[key](episode).toFixed(1), row);
    const change = values.change(episode).toFixed(1).replace(/^-0\.0$/, "0.0");
    cell(change === "0.0" ? change : change.replace(/^-|^/, sign => sign ? "−" : "+"), row);
    for (const key of ["domain", "shot", "episode"]) cell(values[key](episode), row);
    row.addEventListener("click", () => show(episode, true));
    episode.row = row;
  }
  table.tBodies[0].replaceWith(body);
  more.hidden = hits.length <= shown;
  more.textContent = `Show ${Math.min(PAGE, hits.length - shown)} more`;
  mark();
}

function mark() {
  for (const row of table.tBodies[0].rows) row.removeAttribute("aria-current");
  if (hits.indexOf(current) < shown) current?.row?.setAttribute("aria-current", "true");
  const place = hits.indexOf(current);
  const [before, after] = walk.querySelectorAll("button");
  before.disabled = place <= 0;
  after.disabled = place < 0 || place === hits.length - 1;
  walk.querySelector("span").textContent = place < 0 ? "" : `${place + 1} of ${hits.length}`;
}

// The slider: two layers of masks on one picture, each clipped at the same place.
const comparing = document.querySelector("#comparing").content.firstElementChild.cloneNode(true);
const [sides, slider] = [comparing.querySelector(".sides"), comparing.querySelector("input[type=range]")];
const names = comparing.querySelectorAll(".names span");
function divide() {
  comparing.style.setProperty("--at", `${slider.value}%`);
  slider.setAttribute("aria-valuetext",
    `${slider.value} % ${titleOf(form.left.value)}, ${100 - slider.value} % ${titleOf(form.right.value)}`);
}
function drag(event) {
  if (event.type === "pointermove" && !sides.hasPointerCapture(event.pointerId)) return;
  if (event.type === "pointerdown") sides.setPointerCapture(event.pointerId);
  const box = sides.getBoundingClientRect();
  slider.value = Math.round(100 * (event.clientX - box.left) / box.width);
  divide();
}
slider.addEventListener("input", divide);
sides.addEventListener("pointerdown", drag);
sides.addEventListener("pointermove", drag);

function figureOf(episode, variant) {
  return episode.pictures.querySelector(`figure[data-variant="${variant}"]`);
}

function compare(episode) {
  const [query, left, right, outline] = sides.querySelectorAll("img");
  query.src = figureOf(episode, TRUTH).querySelector("img").src;
  for (const [image, side, name] of [[left, "left", names[0]], [right, "right", names[1]]]) {
    const variant = form[side].value;
    image.src = figureOf(episode, variant).querySelector(".mask").src;
    name.textContent = titleOf(variant) + (variant === TRUTH ? "" : `, IoU\u00a0${iouOf(episode, variant).toFixed(1)}\u00a0%`);
    for (const figure of episode.pictures.querySelectorAll("figure"))
      figure.classList.toggle(side, figure.dataset.variant === variant);
  }
  outline.src = episode.pictures.dataset.outline;
  episode.pictures.querySelector("h3").after(comparing);
  divide();
}

const [unpictured, switches] = [".unpictured", ".switches"].map(name => viewer.querySelector(name));
function show(episode, asked = false) {
  if (current?.pictures) current.pictures.hidden = true;
  current = episode;
  unpictured.hidden = true;
  switches.hidden = !episode?.pictures;
  if (episode?.pictures) {
    viewer.append(episode.pictures);
    episode.pictures.hidden = false;
    compare(episode);
  } else if (episode) {
    unpictured.hidden = false;
    unpictured.querySelector("h3").textContent =
      `${data.domains[episode.domain]}, ${episode.shot}-shot, episode ${episode.number}: ${episode.className}`;
    unpictured.querySelector("dl").replaceChildren(...Object.keys(data.variants).flatMap(variant => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = data.variants[variant];
      value.textContent = `IoU ${iouOf(episode, variant).toFixed(1)} %`;
      return [term, value];
    }));
  }
  walk.hidden = !episode;
  mark();
  // On a phone the pictures are below the list; who asks for them is led there.
  if (asked && viewer.getBoundingClientRect().top > innerHeight / 2) viewer.scrollIntoView();
}

function step(by) {
  const next = hits[hits.indexOf(current) + by];
  if (!next) return;
  if (hits.indexOf(next) >= shown) {
    shown += PAGE;
    list();
  }
  show(next);
}

for (const episode of all) {
  if (!episode.pictures) continue;
  episode.pictures.hidden = true;
  for (const figure of episode.pictures.querySelectorAll("figure[data-variant]")) {
    const [layers, caption] = figure.children;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "choose", title: "Compare this one, on the right" });
    button.setAttribute("aria-label", `Compare ${caption.textContent}, on the right`);
    layers.replaceWith(button);
    button.append(layers);
    button.addEventListener("click", () => {
      form.right.value = figure.dataset.variant;
      find();
    });
  }
}
heads.forEach((head, column) => head.addEventListener("click", () => {
  const { key, value } = columns[column];
  const direction = nextSort(head.getAttribute("aria-sort"), typeof value(all[0]) === "number");
  form.sort.value = direction ? `${key} ${direction}` : "original";
  find();
  status.textContent = direction ? `Sorted by ${head.textContent}, ${direction}.` : "In the original order.";
}));
form.addEventListener("input", find);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(find));
more.addEventListener("click", () => {
  shown += PAGE;
  list();
});
const [before, after] = walk.querySelectorAll("button");
before.addEventListener("click", () => step(-1));
after.addEventListener("click", () => step(1));
for (const name of ["masks", "outline"]) {
  const input = viewer.querySelector(`input[name=${name}]`);
  const apply = () => viewer.classList.toggle(name === "masks" ? "bare" : "unlined", !input.checked);
  input.addEventListener("change", apply);
  apply();
}
form.hidden = finder.hidden = false;
section.querySelector(".still").hidden = true;
find();

// A link to an episode finds it first: what is hidden cannot be scrolled to.
function reveal() {
  const episode = all.find(e => e.anchor === decodeURIComponent(location.hash.slice(1)));
  if (!episode) return;
  if (!hits.includes(episode)) {
    form.reset();
    [form.domain.value, form.shot.value] = [episode.domain, episode.shot];
    find();
  }
  show(episode);
  viewer.scrollIntoView();
}
window.addEventListener("hashchange", reveal);
// The same link a second time changes no hash.
document.addEventListener("click", event => {
  if (event.target.closest("a[href*='#episode-']")) setTimeout(reveal);
});
reveal();
}
