// The rate of the last five minutes, as a picture in SVG.

import { svg } from "./dom.js";
import { rate } from "./words.js";

const SPAN_S = 300;
const GAP_S = 9; // no sample for so long: the line is broken, since nothing is known
const LEFT = 2;
const BOTTOM = 20;
const TOP = 12;
const LOW_PX = 150; // so low, a label in the middle stands in the line's way

export class Chart {
  constructor(place) {
    this.place = place;
    this.samples = []; // {t: milliseconds, v: bytes per second}, oldest first
    this.cap = 0;
    this.node = svg("svg", { role: "img", "aria-label": "Rate over five minutes" });
    place.append(this.node);
    new ResizeObserver(() => this.draw()).observe(place);
    place.addEventListener("pointermove", (event) => this.#point(event));
    place.addEventListener("pointerleave", () => this.mark?.replaceChildren());
  }

  /** What the agent remembers: rates `stepS` seconds apart, the last one now. */
  begin(stepS, values) {
    const now = Date.now();
    this.samples = values.map((v, index) => ({ t: now - (values.length - 1 - index) * stepS * 1000, v }));
    this.draw();
  }

  add(v, cap) {
    const now = Date.now();
    this.cap = cap;
    this.samples.push({ t: now, v });
    while (this.samples.length && this.samples[0].t < now - (SPAN_S + 10) * 1000) this.samples.shift();
    this.draw();
  }

  draw() {
    const width = this.place.clientWidth;
    const height = this.place.clientHeight;
    if (!width || !height) return;
    this.width = width;
    this.height = height;
    const now = (this.now = this.samples.at(-1)?.t ?? Date.now());
    const highest = Math.max(0, ...this.samples.map((sample) => sample.v));
    const top = (this.top = nice(Math.max(highest, this.cap, 1e6) * 1.04));
    const x = (t) => LEFT + (1 - (now - t) / 1000 / SPAN_S) * (width - LEFT);
    const y = (v) => TOP + (1 - v / top) * (height - TOP - BOTTOM);
    this.x = x;
    this.y = y;
    const children = [];
    for (const share of [0, 0.5, 1]) {
      const at = y(top * share);
      children.push(svg("line", { class: share ? "grid" : "base", x1: LEFT, x2: width, y1: at, y2: at }));
      if (share && (highest || this.cap) && (share === 1 || height > LOW_PX)) children.push(label(LEFT + 2, at - 4, "start", round(top * share)));
    }
    for (let minute = 1; minute < 5; minute += 1) {
      const at = x(now - minute * 60_000);
      children.push(svg("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
      if (width > 360) children.push(label(at, height - 5, "middle", `${minute}\u00a0min`));
    }
    children.push(label(LEFT + 2, height - 5, "start", "5\u00a0min ago"), label(width - 2, height - 5, "end", "now"));
    for (const run of runs(this.samples)) {
      const points = run.map((sample) => `${x(sample.t).toFixed(1)},${y(sample.v).toFixed(1)}`);
      const first = x(run[0].t).toFixed(1);
      const last = x(run.at(-1).t).toFixed(1);
      children.push(svg("path", { class: "area", d: `M${first},${y(0)}L${points.join("L")}L${last},${y(0)}Z` }));
      children.push(svg("path", { class: "line", d: `M${points.join("L")}` }));
    }
    if (this.cap > 0) {
      children.push(svg("line", { class: "cap-line", x1: LEFT, x2: width, y1: y(this.cap), y2: y(this.cap) }));
      children.push(label(width - 2, y(this.cap) - 4, "end", `cap ${rate(this.cap)}`, "cap-label"));
    }
    this.mark = svg("g", { class: "mark" });
    const values = this.samples.map((sample) => sample.v);
    this.node.setAttribute(
      "aria-label",
      `Rate over five minutes: now ${rate(values.at(-1) ?? 0)}, highest ${rate(highest)}${this.cap ? `, capped at ${rate(this.cap)}` : ""}`,
    );
    this.node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.node.replaceChildren(...children, this.mark);
  }

  #point(event) {
    if (!this.samples.length || !this.mark) return;
    const at = event.clientX - this.place.getBoundingClientRect().left;
    const near = this.samples.reduce((best, one) => (Math.abs(this.x(one.t) - at) < Math.abs(this.x(best.t) - at) ? one : best));
    const x = this.x(near.t);
    const s = Math.round((this.now - near.t) / 1000);
    const text = `${rate(near.v)}, ${s < 2 ? "now" : `${s < 60 ? `${s}\u00a0s` : `${Math.floor(s / 60)}\u00a0min ${s % 60}\u00a0s`} ago`}`;
    this.mark.replaceChildren(
      svg("line", { x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }),
      svg("circle", { cx: x, cy: this.y(near.v), r: 3.5 }),
      label(x > this.width / 2 ? x - 8 : x + 8, TOP + 10, x > this.width / 2 ? "end" : "start", text),
    );
  }
}

function label(x, y, anchor, text, name = "label") {
  const node = svg("text", { class: name, x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

// The next of 1, 2, 4, 5, 8 times a power of ten: half of it is a round number too.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 5, 8, 10].find((step) => step * power >= value);
}

// A rate of the scale, without the noughts behind the point.
function round(value) {
  return rate(value).replace(/\.0+(?=\D)/, "");
}

function runs(samples) {
  const found = [];
  let last = -Infinity;
  for (const sample of samples) {
    if (sample.t - last > GAP_S * 1000) found.push([]);
    found.at(-1).push(sample);
    last = sample.t;
  }
  return found.filter((run) => run.length > 1);
}

