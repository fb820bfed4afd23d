// The wants that the page knows: for each group of states a sorted beginning of the agent's list, and its whole length.
//
// The agent has the list, page by page; the events move what is known here. A want that an event names and that is not
// known comes in where it belongs in what was read; behind that it is counted only, and read when somebody scrolls there.

import { get } from "./feed.js";

export const GROUPS = [
  { key: "moving", title: "Moving", states: ["resolving", "downloading", "verifying"] },
  { key: "failed", title: "Failed", states: ["failed"] },
  { key: "waiting", title: "Waiting", states: ["waiting"] },
  { key: "queued", title: "Queued", states: ["queued"] },
  { key: "ready", title: "Ready", states: ["ready"] },
];
const GROUP_OF = new Map(GROUPS.flatMap((group, index) => group.states.map((state) => [state, index])));

const FIRST = 100; // wants of each group in the first look: more than a screen
const MORE = 500; // and for each further page
const RECOUNT_MS = 1500;

export class Wants {
  /** `changed(path)` is called after each change, with null where many changed. */
  constructor(changed) {
    this.changed = changed;
    this.q = "";
    this.label = "";
    this.only = null; // key of one group, or null for all
    this.known = new Map(); // path -> want
    this.groups = GROUPS.map((group) => ({ ...group, paths: [], total: 0, next: null, complete: false, loading: null }));
    this.filled = false; // whether the first look is done
    this.reading = 0; // a number for each look: what belongs to an earlier one is dropped
    this.gone = null; // paths that went away while a further page was on its way
    this.held = null; // events that came while the first pages were on their way
    this.recounting = null;
  }

  /** Read the beginnings of all groups from the agent. */
  async read() {
    const mine = ++this.reading;
    const held = (this.held = []);
    let pages;
    try {
      pages = await Promise.all(this.groups.map((group) => get(this.#query(group, FIRST, null))));
    } catch (error) {
      if (mine === this.reading) this.held = null;
      throw error;
    }
    if (mine !== this.reading) return;
    this.held = null;
    this.known = new Map();
    this.groups.forEach((group, index) => {
      Object.assign(group, { paths: [], total: pages[index].total, loading: null });
      this.#take(group, pages[index]);
    });
    this.filled = true;
    for (const again of held) again();
    this.changed(null);
  }

  /** Read on in a group until `count` of its wants are known, or all are. */
  async more(group, count) {
    if (group.complete || group.loading || group.paths.length >= count) return;
    const mine = this.reading;
    group.loading = (async () => {
      while (!group.complete && group.paths.length < count && mine === this.reading) {
        this.gone ??= new Set();
        const page = await get(this.#query(group, MORE, group.next));
        if (mine !== this.reading) return;
        group.total = page.total;
        this.#take(group, page);
        this.gone = null;
        this.changed(null);
      }
    })();
    try {
      await group.loading;
    } catch {
      // the stream tells of an agent that is away, and all is read again when it is back
    } finally {
      group.loading = null;
    }
  }

  #take(group, page) {
    const index = this.groups.indexOf(group);
    for (const want of page.wants) {
      const known = this.known.get(want.path);
      if (this.gone?.has(want.path) || (known && known.updated_at > want.updated_at)) continue;
      this.#place(want, index);
    }
    group.next = page.next;
    group.complete = page.next === null;
    if (group.complete) group.total = group.paths.length;
  }

  /** An event: this is how a want is now. */
  apply(want) {
    if (this.held) {
      this.held.push(() => this.apply(want));
      return;
    }
    if (!this.#matches(want)) {
      this.remove(want.path);
      return;
    }
    const old = this.known.get(want.path);
    if (old && old.updated_at > want.updated_at) return;
    this.#place(want, null);
    if (!old) this.#recount();
    this.changed(want.path);
  }

  /** An event: a want is gone. */
  remove(path) {
    if (this.held) {
      this.held.push(() => this.remove(path));
      return;
    }
    this.gone?.add(path);
    const old = this.known.get(path);
    if (old) this.#out(old);
    else this.#recount();
    this.changed(path);
  }

  /** Counts that the agent gave, by state; they hold where nothing is filtered. */
  counted(counts) {
    if (this.q || this.label) return;
    for (const group of this.groups) {
      if (!group.complete) group.total = Math.max(group.paths.length, group.states.reduce((sum, state) => sum + (counts[state] ?? 0), 0));
    }
    this.changed(null);
  }

  /** The groups that are shown. */
  visible() {
    return this.groups.filter((group) => (this.only === null || group.key === this.only) && group.total > 0);
  }

  // Puts a want where it belongs. `from` is the group whose page it came in: there it is known to be next.
  #place(want, from) {
    const index = GROUP_OF.get(want.state);
    const old = this.known.get(want.path);
    if (old) {
      if (GROUP_OF.get(old.state) === index) {
        this.known.set(want.path, want);
        return;
      }
      this.#out(old);
    }
    if (index === undefined) return;
    const group = this.groups[index];
    const at = position(group.paths, want.path);
    if (from === null || from !== index) group.total += 1;
    if (from === null && at === group.paths.length && !group.complete) return; // behind what was read
    group.paths.splice(at, 0, want.path);
    this.known.set(want.path, want);
  }

  #out(old) {
    this.known.delete(old.path);
    const group = this.groups[GROUP_OF.get(old.state)];
    if (!group) return;
    const at = position(group.paths, old.path);
    if (group.paths[at] === old.path) group.paths.splice(at, 1);
    group.total = Math.max(group.paths.length, group.total - 1);
  }

  #matches(want) {
    if (this.label) {
      const cut = this.label.indexOf("=");
      if (want.labels?.[this.label.slice(0, cut)] !== this.label.slice(cut + 1)) return false;
    }
    if (!this.q) return true;
    const q = this.q.toLowerCase();
    const names = [want.path, ...(want.models ?? []).map((model) => model.model)];
    return names.some((name) => String(name ?? "").toLowerCase().includes(q));
  }

  // Something that is not known here has changed its group: ask how long the lists are now, not too often.
  #recount() {
    if (this.recounting !== null || this.groups.every((group) => group.complete)) return;
    this.recounting = setTimeout(async () => {
      this.recounting = null;
      const mine = this.reading;
      try {
        const unread = this.groups.filter((group) => !group.complete);
        const pages = await Promise.all(unread.map((group) => get(this.#query(group, 1, null))));
        if (mine !== this.reading) return;
        unread.forEach((group, index) => {
          group.total = Math.max(group.paths.length, pages[index].total);
        });
        this.changed(null);
      } catch {
        // as above
      }
    }, RECOUNT_MS);
  }

  #query(group, limit, after) {
    const query = new URLSearchParams({ state: group.states.join(","), limit: String(limit) });
    if (this.label) query.set("label", this.label);
    if (this.q) query.set("q", this.q);
    if (after !== null) query.set("after", after);
    return `v1/wants?${query}`;
  }
}

// Where a path is in a sorted list, or belongs.
function position(paths, path) {
  let low = 0;
  let high = paths.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (paths[middle] < path) low = middle + 1;
    else high = middle;
  }
  return low;
}
