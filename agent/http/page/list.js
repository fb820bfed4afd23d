// The list of wants: only rows that can be seen are in the document, so that 10,000 are as quick as ten.

import { h, setText } from "./dom.js";
import { makeRow } from "./rows.js";
import { number } from "./words.js";

const AHEAD_PX = 600; // rows are made this far outside the screen
const HEIGHTS = {
  wide: { moving: 68, failed: 112, waiting: 68, queued: 52, ready: 52 },
  narrow: { moving: 104, failed: 160, waiting: 104, queued: 56, ready: 80 },
};
const narrow = matchMedia("(max-width: 760px)");

export class List {
  constructor(place, wants, open) {
    this.place = place;
    this.wants = wants;
    this.open = open;
    this.sections = new Map(); // group key -> its elements
    this.changed = new Set(); // paths whose rows are to be filled again
    this.all = true;
    this.frame = null;
    addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.draw());
    narrow.addEventListener("change", () => this.draw());
    place.addEventListener("keydown", (event) => this.#arrows(event));
    setInterval(() => this.#tick(), 1000);
  }

  /** Something changed: one want, or null for many. Drawn with the next frame. */
  touch(path) {
    if (path === null) this.all = true;
    else this.changed.add(path);
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    const groups = this.wants.visible();
    for (const [key, section] of this.sections) {
      if (groups.some((group) => group.key === key)) continue;
      section.node.remove();
      this.sections.delete(key);
    }
    let before = null;
    for (const group of groups) {
      const section = this.sections.get(group.key) ?? this.#section(group);
      const wanted = before ? before.nextSibling : this.place.firstChild;
      if (wanted !== section.node) this.place.insertBefore(section.node, wanted);
      before = section.node;
      const height = HEIGHTS[narrow.matches ? "narrow" : "wide"][group.key];
      setText(section.count, number(group.total));
      const whole = `${group.total * height}px`;
      if (section.list.style.height !== whole) section.list.style.height = whole;
      section.height = height;
    }
    for (const group of groups) this.#rows(group, this.sections.get(group.key));
    this.changed.clear();
    this.all = false;
  }

  #section(group) {
    const count = h("span", { class: "count" });
    const title = h("h2", { id: `group-${group.key}` }, `${group.title} `, count);
    const list = h("ul", { class: "rows", "aria-labelledby": title.id });
    const section = { node: h("section", { class: `group ${group.key}` }, title, list), count, list, rows: new Map() };
    this.sections.set(group.key, section);
    return section;
  }

  #rows(group, section) {
    const top = section.list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((-top - AHEAD_PX) / section.height));
    const last = Math.min(group.total, Math.ceil((innerHeight - top + AHEAD_PX) / section.height));
    if (last > group.paths.length) this.wants.more(group, last);
    const paths = group.paths.slice(first, Math.max(first, last));
    const shown = new Set(paths);
    for (const [path, row] of section.rows) {
      if (shown.has(path) || row.node.contains(document.activeElement)) continue;
      row.node.remove();
      section.rows.delete(path);
    }
    paths.forEach((path, offset) => this.#row(group, section, path, first + offset));
    for (const [path, row] of section.rows) {
      if (shown.has(path)) continue; // the row that has the focus, away from the screen
      if (this.wants.known.has(path)) continue;
      row.node.remove();
      section.rows.delete(path);
    }
    this.#order(section);
  }

  #row(group, section, path, index) {
    let row = section.rows.get(path);
    const fresh = !row;
    if (fresh) {
      row = makeRow(group.key, this.open);
      section.rows.set(path, row);
    }
    if (fresh || this.all || this.changed.has(path)) row.update(this.wants.known.get(path));
    if (row.index !== index || row.height !== section.height) {
      row.index = index;
      row.height = section.height;
      row.node.style.transform = `translateY(${index * section.height}px)`;
      row.node.setAttribute("aria-posinset", index + 1);
    }
    if (row.total !== group.total) {
      row.total = group.total;
      row.node.setAttribute("aria-setsize", group.total);
    }
  }

  // The document's order is the list's, for the Tab key and for screen readers.
  #order(section) {
    let before = null;
    for (const row of [...section.rows.values()].sort((a, b) => a.index - b.index)) {
      const wanted = before ? before.nextSibling : section.list.firstChild;
      if (wanted !== row.node) section.list.insertBefore(row.node, wanted);
      before = row.node;
    }
  }

  #arrows(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = [...this.place.querySelectorAll("a.name")];
    const at = links.indexOf(document.activeElement);
    const next = links[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (at < 0 || !next) return;
    event.preventDefault();
    next.focus({ preventScroll: true });
    next.closest("li").scrollIntoView({ block: "nearest" });
  }

  // Times until something go on without events.
  #tick() {
    const section = this.sections.get("waiting");
    if (!section) return;
    for (const [path, row] of section.rows) {
      const want = this.wants.known.get(path);
      if (want?.waiting?.until) row.update(want);
    }
  }
}
