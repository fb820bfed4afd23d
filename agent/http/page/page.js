// The page: puts its parts together, and says when it has lost the agent.

import { Chart } from "./chart.js";
import { byId, h, setText } from "./dom.js";
import { Detail } from "./detail.js";
import { Feed, get, Refused, setToken } from "./feed.js";
import { List } from "./list.js";
import { Counts, showDisk, showEmpty, showHealth, showLabels, showNow, tally } from "./panels.js";
import { clock, duration, parts, shown } from "./words.js";
import { Wants } from "./wants.js";

const BUSY_MS = 2000; // how often the whole is asked for while something moves: the chart's step
const CALM_MS = 5000;
const TYPING_MS = 250;

const wants = new Wants((path) => {
  list.touch(path);
  if (path === null || !wants.visible().length) showEmpty(wants, status);
  else byId("empty").hidden = true;
  byId("list").hidden = !byId("empty").hidden;
});
const list = new List(byId("list"), wants, (path) => {
  address.set("want", path);
  go();
});
const chart = new Chart(byId("chart"));
const counts = new Counts((key) => {
  set("state", key ?? "");
});
const detail = new Detail(() => {
  if (address.has("want")) set("want", "");
});
const feed = new Feed({ event: onEvent, up: onUp, down: onDown });

let status = null; // the last /v1/status
let address = new URLSearchParams(location.hash.slice(1)); // what is searched and opened, so that a link keeps it
let lostAt = null; // when the agent was lost, in milliseconds
let asking = null; // timer of the next look at the status
let looked = false; // whether the chart has what the agent remembers

// What is shown, kept in the address

function set(name, value) {
  if (value) address.set(name, value);
  else address.delete(name);
  go();
}

function go() {
  const hash = address.toString();
  if (location.hash.slice(1) !== hash) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  follow();
}

function follow() {
  const q = address.get("q") ?? "";
  const label = address.get("label") ?? "";
  const only = address.get("state") || null;
  const again = q !== wants.q || label !== wants.label;
  Object.assign(wants, { q, label, only });
  if (byId("search").value !== q && document.activeElement !== byId("search")) byId("search").value = q;
  if (status) {
    counts.update(tally(status.counts), only);
    showLabels(status.labels, label);
  }
  if (again) readWants();
  else {
    list.touch(null);
    showEmpty(wants, status);
  }
  const path = address.get("want");
  if (path && path !== detail.path) detail.open(path);
  else if (!path) detail.close();
}

// The agent

async function readWants() {
  try {
    await wants.read();
  } catch (error) {
    onTrouble(error);
  }
}

async function look() {
  clearTimeout(asking);
  try {
    const before = status?.agent;
    status = await get("v1/status");
    if (before && (before.pid !== status.agent.pid || before.started_at !== status.agent.started_at)) {
      say(`The agent was started again at ${clock(status.agent.started_at)}`);
      readWants();
    }
    if (!looked && status.rates) chart.begin(status.rates.step_s, status.rates.bytes_per_s);
    looked = true;
    chart.add(status.rate_bytes_per_s, status.window ? status.window.max_rate : status.max_rate);
    showStatus();
  } catch (error) {
    onTrouble(error);
  }
  const busy = status && (status.rate_bytes_per_s > 0 || tally(status.counts).moving > 0);
  asking = setTimeout(look, document.hidden || !busy ? CALM_MS : BUSY_MS);
}

function showStatus() {
  const agent = status.agent;
  setText(byId("host"), shown(agent.host));
  showNow(status);
  showDisk(status.disk, status.store);
  showHealth(status);
  const count = tally(status.counts);
  counts.update(count, wants.only);
  wants.counted(status.counts);
  showLabels(status.labels, wants.label);
  const rate = status.rate_bytes_per_s ? `${parts(status.rate_bytes_per_s).join(" ")}/s` : "";
  document.title = [rate, count.failed ? `${count.failed} failed` : "", `${shown(agent.host)} – wantd`].filter(Boolean).join(" · ");
}

function onEvent(event) {
  if (event.type === "want") {
    wants.apply(event.data);
    detail.touch(event.data.path);
  } else if (event.type === "want_gone") {
    wants.remove(event.data.path);
    detail.touch(event.data.path);
  } else if (event.type === "reset") {
    readWants();
    detail.touch(null);
    soon();
  } else soon(); // a model or the agent itself: what the status tells has changed
}

// The status a little later, once for many events.
function soon() {
  clearTimeout(asking);
  asking = setTimeout(look, 300);
}

let begun = false;

function onUp() {
  if (lostAt !== null) say("Connected again");
  lostAt = null;
  showLink();
  look();
  if (!begun) {
    begun = true;
    follow();
    readWants();
  } else if (!wants.filled) readWants();
  detail.touch(null);
}

function onDown(error) {
  if (error instanceof Refused && error.status === 401) {
    ask();
    return;
  }
  // A stream that ends, as at a restart, is nothing to speak of when the next one is there at once.
  if (feed.failures >= 1 && lostAt === null) {
    lostAt = Date.now();
    say("Lost the agent");
  }
  showLink(error);
}

function onTrouble(error) {
  if (error instanceof Refused && error.status === 401) ask();
  else if (error instanceof Refused) say(`${shown(error.message)}. ${shown(error.hint)}`);
  else feed.restart(); // no answer: the stream will tell whether the agent is there
}

function showLink(error = null) {
  const link = byId("link");
  const lost = byId("lost");
  link.dataset.link = lostAt === null ? "live" : "lost";
  setText(byId("link-text"), lostAt === null ? "live" : "lost");
  document.body.classList.toggle("is-lost", lostAt !== null);
  lost.hidden = lostAt === null;
  if (lostAt === null) return;
  const why = error instanceof Refused ? `The agent answers: ${shown(error.message)}. ${shown(error.hint)}` : "It may be stopped, or the tunnel to it is closed.";
  lost.replaceChildren(
    h("strong", { text: `No connection to the agent for ${duration((Date.now() - lostAt) / 1000)}.` }),
    ` ${why} What you see is from ${clock(new Date(lostAt))}; it goes on when the agent is back.`,
  );
}

setInterval(() => {
  if (lostAt !== null) showLink();
}, 1000);

// Said to screen readers, and nowhere else: what can be seen says it already.
function say(text) {
  setText(byId("said"), text);
}

function ask() {
  if (!byId("ask").open) byId("ask").showModal();
}

byId("ask-form").addEventListener("submit", () => {
  setToken(byId("ask-token").value.trim());
  feed.run();
});

// Keys, search, theme

let typing = null;
byId("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => set("q", event.target.value.trim()), TYPING_MS);
});
byId("label").addEventListener("change", (event) => set("label", event.target.value));
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !byId("detail").open) {
    event.preventDefault();
    byId("search").focus();
  }
});
addEventListener("hashchange", () => {
  const hash = new URLSearchParams(location.hash.slice(1));
  if (hash.has("list")) return; // the link that skips to the list
  address = hash;
  follow();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

const THEMES = ["auto", "light", "dark"];
function theme(name) {
  document.documentElement.dataset.theme = name;
  setText(byId("theme"), `theme: ${name}`);
  chart.draw();
}
byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("theme", next);
  theme(next);
});
theme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");

// Panels are open where there is room beside the list, and closed above it.
const beside = matchMedia("(min-width: 1080px)");
function arrange() {
  for (const id of ["disk", "health"]) byId(id).open = beside.matches;
}
beside.addEventListener("change", arrange);
arrange();

feed.run();
