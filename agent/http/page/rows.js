// One row of the list: what a glance should tell of a want.

import { bar, copyButton, h, setText } from "./dom.js";
import { duration, percent, plural, rate, shown, size, sources, title } from "./words.js";

const USUAL = 5; // the priority of a want that names none, which is not worth saying
const MAKERS = { moving: moving, failed: failed, waiting: waiting, queued: queued, ready: ready };

/** The row of a want in a group; `update(want)` as often as it changes, `node` stays. */
export function makeRow(key, open) {
  const name = h("bdi");
  const link = h("a", { class: "name", href: "#" }, name);
  const sub = h("p", { class: "sub" });
  const body = MAKERS[key]();
  const node = h("li", { class: `row ${key}` }, h("div", { class: "who" }, link, sub), ...body.nodes);
  let path = null;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    open(path);
  });
  return {
    node,
    link,
    update(want) {
      path = want.path;
      setText(name, title(want));
      link.title = shown(want.path);
      setSub(sub, want);
      body.update(want);
    },
  };
}

// Where it was asked for, from where it comes, how urgent it is, its labels.
function setSub(node, want) {
  const labels = Object.entries(want.labels ?? {});
  const texts = [shown(want.path), sources(want)];
  if ((want.priority ?? USUAL) !== USUAL) texts.push(`priority ${want.priority}`);
  const code = want.state === "failed" ? shown(want.error?.code ?? "") : "";
  const key = JSON.stringify([texts, labels, code]);
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  const shownTexts = texts.filter(Boolean).map((text, index) => h("span", { class: index ? "" : "path" }, h("bdi", { text })));
  const tags = labels.slice(0, 3).map(([name, value]) => h("span", { class: "tag" }, h("bdi", { text: `${shown(name)}=${shown(value)}` })));
  node.replaceChildren(...(code ? [h("code", { class: "code", text: code })] : []), ...shownTexts, ...tags);
}

export function hostOf(value) {
  return typeof value === "string" ? value : (value.host ?? "its server");
}

function moving() {
  const line = bar("Progress");
  const share = h("span", { class: "share" });
  const bytes = h("span", { class: "bytes" });
  const speed = h("p", { class: "speed" });
  const left = h("p", { class: "left" });
  return {
    nodes: [
      h("div", { class: "way" }, h("p", { class: "way-text" }, share, bytes), line.node),
      h("div", { class: "numbers" }, speed, left),
    ],
    update(want) {
      line.node.dataset.state = want.state;
      line.node.setAttribute("aria-label", `Progress of ${title(want)}`);
      line.update(want.progress ?? 0);
      const downloading = want.state === "downloading";
      setText(share, downloading ? percent(want.progress) : "");
      setText(bytes, movingText(want));
      setText(speed, downloading ? rate(want.rate_bytes_per_s ?? 0) : "");
      setText(left, downloading && want.eta_s !== null ? `${duration(want.eta_s)} left` : "");
    },
  };
}

function movingText(want) {
  if (want.state === "resolving") return "Looking up its files";
  if (want.state === "verifying") return `Verifying ${size(want.bytes_total ?? want.bytes_done)}`;
  const done = `${size(want.bytes_done)} of ${size(want.bytes_total)}`;
  return want.throttled_by ? `${done}, held back by ${shown(hostOf(want.throttled_by))}` : done;
}

function failed() {
  const message = h("p", { class: "message" });
  const hint = h("p", { class: "hint" });
  return {
    nodes: [h("div", { class: "error" }, message, hint)],
    update(want) {
      const error = want.error ?? {};
      setText(message, shown(error.message ?? "failed"));
      setText(hint, shown(error.hint ?? ""));
    },
  };
}

function waiting() {
  const why = h("p", { class: "why" });
  const share = h("p", { class: "left" });
  const until = h("p", { class: "speed" });
  return {
    nodes: [h("div", { class: "error" }, why), h("div", { class: "numbers" }, until, share)],
    update(want) {
      setText(why, sentence(want));
      const time = want.waiting?.until;
      setText(until, time ? countdown(time) : "");
      until.dataset.until = time ?? "";
      setText(share, want.bytes_done ? `${percent(want.progress)} there` : "");
    },
  };
}

/** Why a want waits. */
export function sentence(want) {
  const text = want.waiting_text ?? (want.waiting ? `waiting (${want.waiting.for})` : "");
  return shown(text.charAt(0).toUpperCase() + text.slice(1));
}

export function countdown(time) {
  const s = (Date.parse(time) - Date.now()) / 1000;
  return s > 0 ? `in ${duration(s)}` : "now";
}

function queued() {
  return { nodes: [h("div", { class: "numbers" })], update() {} };
}

function ready() {
  const path = h("bdi", { dir: "ltr" }); // in a box that runs from right to left, so that the beginning is cut, not the end
  const bytes = h("p", { class: "left" });
  let first = "";
  const copy = copyButton(() => first, "path");
  return {
    nodes: [h("div", { class: "where" }, h("span", { class: "place" }, path), copy), h("div", { class: "numbers" }, bytes)],
    update(want) {
      const paths = (want.models ?? []).map((model) => model.path).filter(Boolean);
      first = paths[0] ?? "";
      copy.hidden = !first;
      copy.setAttribute("aria-label", `Copy the path of ${title(want)}`);
      setText(path, shown(first) + (paths.length > 1 ? ` and ${plural(paths.length - 1, "more path")}` : ""));
      setText(bytes, size(want.bytes_total));
    },
  };
}
