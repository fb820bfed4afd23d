// One want with all that is known of it, in a panel of its own.

import { bar, byId, copyButton, h, svg } from "./dom.js";
import { get, Refused } from "./feed.js";
import { facts } from "./panels.js";
import { countdown, hostOf, sentence } from "./rows.js";
import { ago, clock, duration, nameOf, percent, plural, rate, shown, size, source, title } from "./words.js";

const AGAIN_MS = 700; // how often a want in motion is asked for again
const MODELS_MOST = 100;
const FILES_MOST = 300;

export class Detail {
  /** `closed()` is called when the panel closes. */
  constructor(closed) {
    this.node = byId("detail");
    this.path = null;
    this.timer = null;
    this.node.addEventListener("close", () => {
      this.path = null;
      closed();
    });
    this.node.addEventListener("click", (event) => {
      if (event.target === this.node) this.node.close(); // outside of the panel
    });
  }

  async open(path) {
    this.path = path;
    this.body = h("div", { class: "detail-body" }, h("p", { text: "…" }));
    this.title = h("h2", { id: "detail-title", tabindex: "-1" }, h("bdi", { text: shown(path) }));
    const close = h("button", { type: "button", class: "quiet", text: "Close", on: { click: () => this.node.close() } });
    this.node.replaceChildren(h("div", { class: "detail-head" }, this.title, close), this.body);
    if (!this.node.open) this.node.showModal();
    this.title.focus();
    await this.#read();
  }

  close() {
    if (this.node.open) this.node.close();
  }

  /** The want has changed: ask again, but not at once each time. */
  touch(path) {
    if (path !== null && path !== this.path) return;
    if (this.path === null || this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.path !== null) this.#read();
    }, AGAIN_MS);
  }

  async #read() {
    const path = this.path;
    try {
      const want = await get(`v1/wants/${path.split("/").map(encodeURIComponent).join("/")}`);
      if (path === this.path) this.#show(want);
    } catch (error) {
      if (path !== this.path || !(error instanceof Refused)) return;
      this.body.replaceChildren(h("p", { class: "big", text: error.status === 404 ? "This want is gone" : shown(error.message) }), h("p", { text: shown(error.hint) }));
    }
  }

  #show(want) {
    const opened = [...this.body.querySelectorAll("details")].map((one) => one.open);
    const focused = focusPath(this.body);
    this.title.replaceChildren(h("bdi", { text: title(want) }));
    const models = want.models ?? [];
    this.body.replaceChildren(
      head(want),
      ...(want.error ? [trouble(want.error)] : []),
      ...(want.state === "waiting" ? [waits(want)] : []),
      ...models.slice(0, MODELS_MOST).map((model) => modelPart(model, models.length > 1)),
      ...(models.length > MODELS_MOST ? [h("p", { class: "more", text: `and ${plural(models.length - MODELS_MOST, "more model")}` })] : []),
      h("h3", { text: "The want" }),
      facts(ofWant(want)),
    );
    [...this.body.querySelectorAll("details")].forEach((one, index) => {
      if (opened[index] !== undefined) one.open = opened[index];
    });
    focusAgain(this.body, focused);
  }
}

function head(want) {
  const line = bar(`Progress of ${title(want)}`);
  line.node.dataset.state = want.state;
  line.update(want.progress ?? 0);
  const moving = want.state === "downloading";
  return h(
    "div",
    { class: `detail-now ${want.state}` },
    h("p", { class: "detail-share" }, h("span", { class: "state", text: want.state }), h("span", { class: "share", text: percent(want.progress) })),
    line.node,
    h(
      "p",
      { class: "detail-bytes" },
      h("span", { text: `${size(want.bytes_done)} of ${size(want.bytes_total)}` }),
      h("span", { text: moving ? `${rate(want.rate_bytes_per_s)}${want.eta_s === null ? "" : `, ${duration(want.eta_s)} left`}` : "" }),
    ),
    want.throttled_by ? h("p", { class: "note", text: `${shown(hostOf(want.throttled_by))} holds back; the rate is what it gives` }) : null,
  );
}

function trouble(error) {
  return h(
    "div",
    { class: "trouble-box" },
    h("p", { class: "message", text: shown(error.message) }),
    h("p", { class: "hint", text: shown(error.hint) }),
    h("p", { class: "code-line" }, h("code", { text: shown(error.code) }), error.retryable ? " is tried again" : " is final: touch the want to try again"),
  );
}

function waits(want) {
  const until = want.waiting?.until;
  const because = want.waiting?.because;
  return h(
    "div",
    { class: "wait-box" },
    h("p", { class: "why", text: sentence(want) }),
    until ? h("p", { class: "hint", text: `Goes on ${countdown(until)}, at ${clock(until)}` }) : null,
    because?.hint ? h("p", { class: "hint", text: shown(because.hint) }) : null,
  );
}

function modelPart(model, named) {
  const files = model.files ?? [];
  const parts = [];
  if (named) parts.push(h("h3", {}, h("bdi", { text: shown(model.model) }), h("span", { class: `state ${model.state}`, text: model.state })));
  if (named && model.error) parts.push(trouble(model.error));
  if (model.path) parts.push(h("div", { class: "path-box" }, h("bdi", { class: "place", text: shown(model.path) }), copyButton(() => model.path, `the path of ${shown(model.model)}`)));
  if (model.warning) parts.push(h("p", { class: "note", text: shown(model.warning) }));
  if (model.newer) parts.push(h("p", { class: "note", text: `A newer commit is there: ${shown(model.newer.commit).slice(0, 12)}, ${size(model.newer.bytes_to_fetch)} to fetch` }));
  parts.push(
    facts([
      model.repo && ["Repository", shown(model.repo)],
      model.commit && ["Commit", `${shown(model.commit).slice(0, 12)}${model.revision ? ` (${shown(model.revision)})` : ""}`],
      model.source && ["Source", source(model.source) + (model.source_why ? `: ${shown(model.source_why)}` : "")],
      model.verified === false && ["Verified", "no: a file has no known hash", "bad"],
      model.skipped?.length && ["Left out, can run code", model.skipped.map(shown).join(", ")],
    ]),
  );
  if (files.length) parts.push(fileTable(model, files));
  return h("section", { class: "model-part" }, ...parts);
}

function fileTable(model, files) {
  const total = model.files_total ?? files.length;
  const shownFiles = [...files].sort((a, b) => rank(a) - rank(b)).slice(0, FILES_MOST);
  const rows = shownFiles.map(fileRow);
  if (total > rows.length) rows.push(h("li", { class: "more", text: `and ${plural(total - rows.length, "more file")}${model.files_done ? `; ${model.files_done} done` : ""}` }));
  return h("details", { class: "files", open: true }, h("summary", { text: plural(total, "file") }), h("ul", {}, ...rows));
}

// What moves comes first, then what is left, then what is done; each as the repository has it.
function rank(file) {
  return { downloading: 0, verifying: 0, failed: 1, waiting: 1, ready: 3 }[file.state] ?? 2;
}

function fileRow(file) {
  const moving = file.state === "downloading" || file.state === "verifying";
  const bytes = moving ? `${size(file.bytes_done)} of ${size(file.size)}` : size(file.size);
  return h(
    "li",
    { class: `file ${file.state}` },
    h("bdi", { class: "file-name", text: shown(file.name) }),
    h("span", { class: "file-bytes", text: bytes }),
    h("span", { class: `state ${file.state}`, text: file.state }),
    file.size && (moving || (file.bytes_done > 0 && file.bytes_done < file.size)) ? rangeMap(file) : null,
  );
}

// Which bytes of a file are there, from its first to its last.
function rangeMap(file) {
  const ranges = file.ranges ?? (file.bytes_done ? [[0, file.bytes_done]] : []);
  const scale = 1000 / file.size;
  const path = ranges.map(([first, end]) => `M${(first * scale).toFixed(2)} 0h${Math.max(0.6, (end - first) * scale).toFixed(2)}v10H${(first * scale).toFixed(2)}Z`);
  const done = percent(file.bytes_done / file.size);
  return svg(
    "svg",
    { class: "ranges", viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": `${done} of ${shown(file.name)} is there, in ${plural(ranges.length, "range")}` },
    svg("path", { d: path.join("") }),
  );
}

function ofWant(want) {
  const labels = Object.entries(want.labels ?? {});
  const copyPath = h("span", { class: "path-inline" }, h("bdi", { class: "place", text: shown(want.path ?? nameOf(want)) }));
  return [
    ["File in the spool", copyPath],
    want.priority !== undefined && ["Priority", `${want.priority} (0 first, 9 last)`],
    ["Attempt", String(want.attempt)],
    labels.length && ["Labels", labels.map(([name, value]) => `${shown(name)}=${shown(value)}`).join(", ")],
    ["Asked for", `${clock(want.created_at)} (${ago(want.created_at)})`],
    want.started_at && ["Begun", clock(want.started_at)],
    want.finished_at && ["Finished", `${clock(want.finished_at)}, ${duration((Date.parse(want.finished_at) - Date.parse(want.started_at ?? want.created_at)) / 1000)} of work`],
  ];
}

// What had the focus, as its place among what can have it, so that a new drawing does not take it away.
function focusPath(body) {
  return [...body.querySelectorAll("button, summary")].indexOf(document.activeElement);
}

function focusAgain(body, index) {
  if (index >= 0) [...body.querySelectorAll("button, summary")][index]?.focus({ preventScroll: true });
}
