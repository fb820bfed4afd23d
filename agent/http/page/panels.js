// What stands around the list: the rate in large, counts, disk, health.

import { byId, copyButton, h, setText } from "./dom.js";
import { ago, clock, duration, number, parts, plural, rate, shown, size } from "./words.js";
import { GROUPS } from "./wants.js";

/** The figure that is read from two metres, and a sentence. */
export function showNow(status) {
  const [value, unit] = parts(status.rate_bytes_per_s);
  const count = tally(status.counts);
  const idle = !status.rate_bytes_per_s && !count.moving;
  byId("rate").classList.toggle("idle", idle);
  setText(byId("rate-number"), idle ? "Idle" : value);
  setText(byId("rate-unit"), idle ? "" : `${unit}/s`);
  setText(byId("summary"), summary(count, status));
  const cap = byId("cap");
  const window = status.window;
  const limit = window ? window.max_rate : status.max_rate;
  cap.hidden = !limit && !window;
  setText(cap, capText(limit, window));
}

function capText(limit, window) {
  const until = window?.until ? ` until ${clock(window.until)}` : "";
  if (window && !limit) return `Paused by a window${until}`;
  return window ? `Window: at most ${rate(limit)}${until}` : `Capped at ${rate(limit)}`;
}

/** Counts by group. */
export function tally(counts) {
  const sum = (states) => states.reduce((total, state) => total + (counts[state] ?? 0), 0);
  return Object.fromEntries(GROUPS.map((group) => [group.key, sum(group.states)]));
}

function summary(count, status) {
  const said = [];
  if (count.moving) said.push(`${number(count.moving)} moving` + (status.connections ? ` over ${plural(status.connections, "connection")}` : ""));
  if (count.waiting) said.push(`${number(count.waiting)} waiting`);
  if (count.queued) said.push(`${number(count.queued)} queued`);
  if (count.failed) said.push(`${number(count.failed)} failed`);
  if (said.length) return said.join(", ");
  return count.ready ? `Everything that is wanted is ready: ${plural(count.ready, "want")}` : "Nothing is wanted yet";
}

/** The buttons that choose a group of states. `choose(key)` is called with null for all. */
export class Counts {
  constructor(choose) {
    this.buttons = new Map();
    for (const { key, title } of [{ key: null, title: "All" }, ...GROUPS]) {
      const count = h("span", { class: "many", text: "–" });
      const button = h(
        "button",
        { type: "button", class: `chip ${key ?? "all"}`, "aria-pressed": "false", on: { click: () => choose(key) } },
        count,
        h("span", { class: "what", text: title }),
      );
      this.buttons.set(key, { button, count });
      byId("counts").append(button);
    }
  }

  update(count, only) {
    let all = 0;
    for (const { key } of GROUPS) {
      all += count[key];
      setText(this.buttons.get(key).count, number(count[key]));
      this.buttons.get(key).button.classList.toggle("none", !count[key]);
    }
    setText(this.buttons.get(null).count, number(all));
    for (const [key, { button }] of this.buttons) button.setAttribute("aria-pressed", String(key === only));
  }
}

/** Fill the list of labels; hidden where no want has any. */
export function showLabels(labels, chosen) {
  const select = byId("label");
  const entries = Object.entries(labels ?? {});
  const key = JSON.stringify([labels, chosen]);
  select.hidden = !entries.length && !chosen;
  if (select.dataset.key === key || document.activeElement === select) return;
  select.dataset.key = key;
  const known = new Set(["", ...entries.flatMap(([name, values]) => values.map((value) => `${name}=${value}`))]);
  select.replaceChildren(
    h("option", { value: "", text: "All labels" }),
    ...(known.has(chosen) ? [] : [h("option", { value: chosen, text: shown(chosen) })]),
    ...entries.map(([name, values]) =>
      h("optgroup", { label: shown(name) }, ...values.map((value) => h("option", { value: `${name}=${value}`, text: shown(value) }))),
    ),
  );
  select.value = chosen;
}

export function showDisk(disk, store) {
  const quota = disk.quota_bytes || 0;
  const whole = quota || disk.used_bytes + disk.reserved_bytes + disk.free_bytes;
  const rest = quota ? Math.max(0, quota - disk.used_bytes - disk.reserved_bytes) : disk.free_bytes;
  const low = disk.free_bytes <= disk.min_free_bytes;
  const left = Math.min(rest, disk.free_bytes);
  setText(byId("disk-brief"), `${size(left)} ${left < disk.free_bytes ? "of quota left" : "free"}`);
  byId("disk").classList.toggle("trouble", low);
  const share = (bytes) => (whole ? (bytes / whole) * 100 : 0);
  const stack = h("div", { class: "stack", role: "img", "aria-label": `Models use ${size(disk.used_bytes)}, ${size(disk.reserved_bytes)} are reserved, ${size(disk.free_bytes)} are free` });
  for (const [name, bytes] of [["used", disk.used_bytes], ["reserved", disk.reserved_bytes]]) {
    const part = h("span", { class: name });
    part.style.width = `${Math.min(100, share(bytes))}%`;
    stack.append(part);
  }
  const out = disk.next_out ?? [];
  byId("disk-body").replaceChildren(
    stack,
    facts([
      ["Models", size(disk.used_bytes), "used"],
      ["Reserved for downloads", size(disk.reserved_bytes), "reserved"],
      ["Free on the disk", size(disk.free_bytes), low ? "bad" : "free"],
      ["Kept free", size(disk.min_free_bytes)],
      ["Quota", quota ? size(quota) : "none"],
    ]),
    ...(out.length ? [h("h3", { text: "Would go next" }), nextOut(out)] : []),
    place("Store", store),
  );
}

function nextOut(models) {
  return h(
    "ul",
    { class: "next-out" },
    ...models.slice(0, 5).map((one) =>
      h(
        "li",
        {},
        h("bdi", { class: "model", text: shown(one.model) }),
        h("span", { text: size(one.bytes) }),
        h("span", { class: "unused", text: one.last_used ? `used ${ago(one.last_used)}` : "never used" }),
      ),
    ),
  );
}

export function showHealth(status) {
  const { hub, proxy, rate_limits: limits, last_scan: scan } = status.health;
  const agent = status.agent;
  const items = [["Hub", hub], ["Proxy", proxy]].filter(([, value]) => value);
  const bad = items.filter(([, value]) => value.ok === false);
  const restart = agent.restart_needed ?? [];
  setText(byId("health-brief"), bad.length ? `${bad.map(([name]) => name).join(" and ")} not reachable` : restart.length ? "restart needed" : "all well");
  byId("health").classList.toggle("trouble", bad.length > 0);
  byId("health-body").replaceChildren(
    h("ul", { class: "lights" }, ...items.map(([name, value]) => light(name, value))),
    ...(limits?.length ? [h("h3", { text: "Rate limits" }), facts(limits.map(limitRow))] : []),
    ...(restart.length ? [h("p", { class: "note", text: `Restart the agent to apply ${restart.map(shown).join(", ")}` })] : []),
    facts([
      ["Last scan of the spool", scan ? ago(scan) : "not yet"],
      ["Agent", `${shown(agent.version)}, process ${agent.pid}`],
      ["Running for", duration((Date.now() - Date.parse(agent.started_at)) / 1000)],
    ]),
    place("Spool", status.spool),
  );
}

function light(name, value) {
  const state = value.ok === true ? "good" : value.ok === false ? "bad" : "unknown";
  const text = value.ok === true ? "reachable" : value.ok === false ? shown(value.why ?? "not reachable") : "not asked yet";
  return h(
    "li",
    { class: state },
    h("span", { class: "dot", "aria-hidden": "true" }),
    h("span", { class: "light-name", text: name }),
    h("span", { class: "light-host" }, h("bdi", { text: shown(String(value.endpoint ?? "").replace(/^https?:\/\//, "")) })),
    h("span", { class: "light-text", text }),
  );
}

function limitRow(limit) {
  const reset = limit.reset_s ? ` for ${duration(limit.reset_s < 600 ? limit.reset_s : 60 * Math.round(limit.reset_s / 60))}` : "";
  return [`${shown(limit.host)} ${shown(limit.bucket)}`, `${limit.remaining ? number(limit.remaining) : "none"} left${reset}`, !limit.remaining ? "bad" : ""];
}

/** Names and values as a list of definitions. */
export function facts(rows) {
  return h(
    "dl",
    { class: "facts" },
    ...rows.filter(Boolean).map(([name, value, kind]) =>
      h("div", { class: kind ?? "" }, h("dt", {}, h("bdi", { text: name })), h("dd", {}, value instanceof Node ? value : h("bdi", { text: value }))),
    ),
  );
}

function place(name, path) {
  return h("div", { class: "place-line" }, h("span", { class: "place-name", text: name }), h("bdi", { class: "place", text: shown(path) }), copyButton(() => path, `the path of the ${name.toLowerCase()}`));
}

/** What a page without wants says. */
export function showEmpty(wants, status) {
  const empty = byId("empty");
  const filtered = wants.q || wants.label || wants.only;
  const none = wants.filled && !wants.visible().length;
  empty.hidden = !none;
  byId("list").hidden = none;
  const key = none ? `${Boolean(filtered)} ${status?.spool}` : "";
  if (!none || empty.dataset.key === key) return;
  empty.dataset.key = key;
  if (filtered) {
    empty.replaceChildren(h("p", { class: "big", text: "No want matches" }), h("p", { text: "Clear the search, the label or the state above." }));
    return;
  }
  const touch = `touch ${status?.spool ?? "SPOOL"}/Qwen--Qwen3-0.6B.want`;
  empty.replaceChildren(
    h("p", { class: "big", text: "Nothing is wanted yet" }),
    h("p", { text: "Drop a file into the spool, and its model appears here:" }),
    h("div", { class: "command" }, h("code", { text: shown(touch) }), copyButton(() => touch, "this command")),
    h("p", { text: "or let the command do that, and wait:" }),
    h("div", { class: "command" }, h("code", { text: "wantd get qwen3" }), copyButton(() => "wantd get qwen3", "this command")),
  );
}
